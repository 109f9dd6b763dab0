"""Gating: a copy of a model with a gate behind every prunable layer."""

import collections
import dataclasses
import functools
import inspect
import operator
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

import keras

from keras_bar.analysis import replaying
from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.gate_placement import place_gates
from keras_bar.analysis.gate_placement import regular_placements
from keras_bar.analysis.residual_groups import ResidualGroups
from keras_bar.analysis.residual_groups import check_connectivity
from keras_bar.analysis.residual_groups import gate_key
from keras_bar.analysis.shared_placements import SharedGates
from keras_bar.gated_model import GatedModel
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import SharedGate

BUDGET_NAME = "budget_state"

# Maximum number of layers listed in an error.
MOST_LISTED = 5


def gate(
    model: keras.Model,
    *,
    inputs: Any = None,
    connectivity: str = "mixed",
    skip: str | Iterable[str] = (),
    seed: int | None = None,
    layer: Callable[..., ChannelGate] = HardConcreteGate,
) -> keras.Model:
    """Copies a model and puts a gate behind every prunable layer.

    Prunable are convolutions, hidden dense layers, on vectors and on tokens,
    and the heads of attention and their features. A dense layer is hidden if
    no output of the model is made of its channels. Attention is unrolled, and
    one gate behind its values closes whole heads, with their queries and keys.
    Two others close the features that all heads have in common: those of the
    values, and those of the queries, with those of the keys. Elsewhere the
    gate multiplies the output of the layer's batch normalization where that
    is its only reader, and the layer's own output otherwise. Convolutions in
    groups lose whole groups, or the same channels of each group. Layers
    without a gate are listed, with the reason, by `keras_bar.explain`. One gate
    serves all calls of a layer that the model calls more than once. The copy
    starts from the model's weights and shares nothing with it; nested models
    are unrolled into one. Frozen layers stay frozen, but a model that is frozen
    as a whole becomes trainable.

    Subclassed layers and models are unrolled, too: their `call` runs once on
    symbolic tensors. A layer whose graph does not compute what the layer
    computes, such as one with variables of its own, stays whole, and
    `keras_bar.explain` says why.

    Args:
        model: Built `keras.Model`: Functional, Sequential or subclassed.
        inputs: Structure of `keras.Input` for a subclassed model, the argument
            of its `call`; by default floats of the shapes that it was built
            for.
        connectivity: `"mixed"`: every layer has a gate of its own, so that
            the identity and the branch of a residual block may keep different
            channels, which suits budgets of volume. `"regular"`: all writers
            of a residual stream share one gate, which suits budgets of FLOPs
            and latency.
        skip: Names of layers that get no gate. Nothing inside a nested model,
            an attention layer or a subclassed layer of that name gets one.
        seed: Integer seed of the gates' noise and initial values.
        layer: Class of the gates, such as `keras_bar.layers.GaussianGate`; or
            a function that returns one, such as
            `functools.partial(HardConcreteGate, initializer=...)`. It is called
            with the arguments of `keras_bar.layers.ChannelGate`.

    Returns:
        A Functional `keras.Model` with the same inputs and outputs, named and
        nested as those of `model`. A warning is issued if the class of `model`
        overrides methods such as `train_step`, which the copy does not have.

    Raises:
        ValueError: If the model has no graph of layers, nothing in it can be
            pruned, or an argument is wrong.

    Example:

    >>> model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1))
    >>> student = keras_bar.gate(model, skip=["stem_conv"], seed=0)
    >>> student.get_layer("group1_block1_conv1_gate").channels
    8
    """
    check_connectivity(connectivity)
    _check_kind(layer)
    seed = _checked_seed(seed)
    graph = trace.trace(model, inputs)
    analysis = ChannelAnalysis(graph)
    placements = place_gates(analysis, skip=_checked_skip(graph, skip))
    if connectivity == "regular":
        placements = regular_placements(analysis, placements)
    chosen = [x for x in placements if x.value is not None]
    if not chosen and not any(x.gated for x in placements):
        raise ValueError(
            "Nothing in this model can be pruned. Expected at least one "
            "convolution, hidden dense layer or attention whose channels are "
            "free. "
            "Received: "
            f"{model.name!r} ({_reasons(placements)})"
        )
    groups = ResidualGroups(analysis) if connectivity == "regular" else None
    makers = _Gates(analysis, chosen, groups, seed, layer)
    gated = _rebuild(graph, makers)
    gated.ungated_reasons = {x.name: x.reason for x in placements if x.reason}
    if not model.trainable:
        # The model was frozen as a whole, as a distiller freezes its teacher,
        # but a student has to learn. Each layer is set, because the copy itself
        # is already trainable, and TensorFlow ignores an unchanged value.
        for x in gated.layers:
            x.trainable = True
    return gated


class _Gates:
    """Creates the gates of a graph while it is rebuilt.

    Args:
        analysis: `ChannelAnalysis` of the graph.
        placements: List of `Placement`, those with a gate.
        groups: `ResidualGroups` whose writers share a gate; None if only the
            calls of a layer do.
        seed: Integer or None.
        make: Function that returns a gate.
    """

    def __init__(self, analysis, placements, groups, seed, make):
        self._analysis = analysis
        heads = [x for x in placements if x.axis is None]
        self._names = {x.value: x.name for x in heads}
        self._widths = {x.value: x for x in placements if x.axis is not None}
        self._groups = groups or SharedGates(heads)
        self._writers = collections.Counter(map(self._key, self._names))
        # Those of several layers may not fit.
        layers = {(self._key(x.value), x.node.shared_calls[0]) for x in heads}
        several = collections.Counter(key for key, _ in layers)
        self._groupings = {
            x.value: x.grouping
            for x in heads
            if x.grouping and several[self._key(x.value)] == 1
        }
        self._factors: dict = {}
        self._seed = seed
        self._make = make
        self._count = 0

    def is_gated(self, value):
        """Whether a tensor gets a gate, or is the output of one."""
        made = value.producer is not None and value is value.producer.output
        kept = made and isinstance(value.producer.op, ChannelGate)
        return kept or value in self._names or value in self._widths

    def apply(self, value, tensor):
        """The tensor behind its gates."""
        tensor = self._behind_channels(value, tensor)
        if value not in self._widths:
            return tensor
        place = self._widths[value]
        return self._layer(place.name, value, place.axis)(tensor)

    def _behind_channels(self, value, tensor):
        if value not in self._names:
            return tensor
        key = self._key(value)
        fresh_name = self._analysis.graph.fresh_name
        if key in self._factors:
            factors, rows = self._factors[key]
            same = rows == value.rows
            multiply = keras.layers.Multiply if same else SharedGate
            return multiply(
                name=fresh_name(f"{self._names[value]}_shared_gate"),
                dtype=value.dtype,
            )([tensor, factors])
        axis = self._analysis.channels[value].axis
        shared = self._writers[key] > 1
        layer = self._layer(self._names[value], value, axis, shared)
        if not shared:
            return layer(tensor)
        output, factors = layer(tensor)
        self._factors[key] = factors, value.rows
        return output

    def _layer(self, name, value, axis, shared=False):
        """A new gate along an axis of a tensor."""
        options = {
            "axis": -1 if axis == len(value.shape) - 1 else axis,
            "return_factors": shared,
            "seed": self._next_seed(),
            "name": self._analysis.graph.fresh_name(f"{name}_gate"),
            "dtype": value.dtype,
        }
        if value in self._groupings:
            options |= dataclasses.asdict(self._groupings[value])
        _check_takes(self._make, options)
        layer = self._make(**options)
        if not isinstance(layer, ChannelGate):
            raise ValueError(
                "`layer` did not create a `ChannelGate`. Expected a class of "
                "gates, or a function that returns one. "
                f"Received: {layer!r} (of type {type(layer)})"
            )
        return layer

    def _key(self, value):
        """The key under which tensors share a gate."""
        return gate_key(value, self._groups, self._analysis)

    def _next_seed(self):
        self._count += 1
        return None if self._seed is None else self._seed + self._count


def _check_takes(make, options):
    """Raises a ValueError if a function does not take these options."""
    try:
        inspect.signature(make).bind(**options)
    except TypeError as error:
        raise ValueError(
            f"`layer` cannot create the gate {options['name']!r}. Expected a "
            "class of gates, or a function of the arguments "
            f"{', '.join(options)}. Received: {make!r} ({error})"
        ) from None


def _rebuild(graph, makers):
    """The copy, with gates, and the budget's state behind the last gate."""
    clones: dict = {}
    gated = [x for x in graph.values if makers.is_gated(x)]
    last = gated[-1]
    beside = set(gated) - _upstream(last)
    state = _budget_state(graph)

    def rebuild(node, tensors):
        if isinstance(node.op, BudgetState):
            return [tensors[node.inputs[0]]]
        op = clones.get(id(node.op))
        if op is None:
            op = clones[id(node.op)] = trace.clone(node.op, node.name, node)
        outputs = trace.call(op, node, tensors)
        trace.copy_state(node.op, op)
        behind = {
            value: makers.apply(value, tensor)
            for value, tensor in zip(node.outputs, outputs, strict=True)
        }
        if last in behind:
            others = [tensors[x] for x in gated if x in beside]
            read = [behind[last], *others] if others else behind[last]
            behind[last] = state(read)
        return list(behind.values())

    copy = replaying.replay(graph, rebuild, kind=GatedModel)
    for node in graph.nodes:
        if isinstance(node.op, BudgetState):
            trace.copy_state(node.op, state)
    return copy


def _budget_state(graph):
    """The layer that holds the state of a budget. If a model is gated again,
    its state layer, which may not wait for all gates, is replaced by a copy."""
    for node in graph.nodes:
        if isinstance(node.op, BudgetState):
            return trace.clone(node.op, node.name)
    name = graph.fresh_name(BUDGET_NAME)
    return BudgetState(name=name, dtype="float32")


def _upstream(value):
    """Set of a `Value` and everything that it is computed from."""
    found, stack = set(), [value]
    while stack:
        tensor = stack.pop()
        if tensor not in found:
            found.add(tensor)
            stack.extend(tensor.producer.inputs if tensor.producer else ())
    return found


def _check_kind(layer):
    """Raises a ValueError unless `layer` can create gates."""
    made = layer.func if isinstance(layer, functools.partial) else layer
    other = inspect.isclass(made) and not issubclass(made, ChannelGate)
    if other or not callable(layer):
        raise ValueError(
            "Invalid kind of gates. Expected a class of gates, such as "
            "`keras_bar.layers.HardConcreteGate`, or a function that returns "
            f"one. Received: layer={layer!r}"
        )


def _checked_seed(seed):
    """The seed as an integer, or None."""
    try:
        if not isinstance(seed, bool):
            return None if seed is None else operator.index(seed)
    except TypeError:
        pass
    raise ValueError(
        f"Invalid seed. Expected an integer or None. Received: seed={seed!r}"
    )


def _checked_skip(graph, skip):
    try:
        names = (skip,) if isinstance(skip, str) else tuple(skip)
    except TypeError:
        names = (None,)
    if not all(isinstance(x, str) for x in names):
        raise ValueError(
            "Invalid layers to skip. Expected the name of a layer, or a list "
            f"of names. Received: skip={skip!r}"
        )
    known = {x for node in graph.nodes for x in (node.name, node.op.name)}
    known |= graph.inside.keys()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            "Cannot skip layers that the model does not have. Expected names "
            f"of its layers. Received: skip={unknown}"
        )
    return [y for x in names for y in (x, *graph.inside.get(x, ()))]


def _reasons(placements):
    """The reasons why nothing can be gated, for an error message."""
    if not placements:
        return "it has no convolution, hidden dense layer or attention"
    reasons = [f"{x.name}: {x.reason}" for x in placements[:MOST_LISTED]]
    if len(placements) > MOST_LISTED:
        reasons.append(f"and {len(placements) - MOST_LISTED} more")
    return "; ".join(reasons)
