"""The units of work of a network, whose times add up to its latency.

A unit is a layer together with what a runtime fuses with it: a zero padding in
front of a convolution, and the batch normalization and the activation behind
it. Its time depends on its configuration, such as kernel, stride and image
size, and on its widths: the channels that it reads and writes. Units of equal
configuration share one table of times.
"""

import dataclasses
import inspect
from typing import Any

import keras

from keras_bar.analysis import cloning
from keras_bar.analysis import shared_calls
from keras_bar.analysis.algebra import Expression
from keras_bar.analysis.arena_program import VIEWS

# Entries of a configuration that do not change how long a layer takes, or that
# follow from its widths.
_IRRELEVANT = (
    "activity_regularizer autocast build_config data_format dtype epsilon "
    "filters lora_alpha lora_rank momentum name output_shape "
    "quantization_config renorm renorm_momentum scale seed synchronized "
    "trainable units"
)
_IRRELEVANT_ENDS = ("_initializer", "_regularizer", "_constraint")

# Layers that a runtime drops, or that only give a tensor another shape.
_FREE = {*VIEWS, "InputLayer"}

# Maximum number of runs of channels that compaction pads one by one.
MOST_PADS = 3

# Layers with a kernel between all channels that they read and write.
_MIXING = (
    "Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose "
    "Dense EinsumDense SeparableConv1D SeparableConv2D"
)


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of a network that a runtime computes in one go.

    Attributes:
        key: String, the configuration. Units with equal keys share a table.
        nodes: List of its `Node`, in order.
        head: Its main `Node`: the one with a kernel, or the first.
        reads, writes: Pairs `(Expression, channels)`, its widths; `reads` is
            None if the time depends on one width alone.
        is_scalable: Whether it can be built with fewer channels. The time of
            other units is in proportion to their width.
        moves: `"pad"` or `"gather"` for the move of the channels of a branch
            to their places in a mixed addition; empty for layers.
        condition: Pair `(Expression, 1)`, whether the unit exists; or None.
        axes: Dict from inputs and output of its first `Node` and its head to
            the axis of their channels, where it is known.
        parts: Tuple of pairs `(Expression, features)`, the features of heads
            of attention over which it computes, or the channels that each
            group of a convolution reads. Its time is in proportion to the
            number that is left.
    """

    key: str
    nodes: list[Any]
    head: Any
    reads: tuple[Expression, int] | None
    writes: tuple[Expression, int]
    is_scalable: bool = True
    moves: str = ""
    condition: tuple[Expression, int] | None = None
    axes: dict[Any, int] = dataclasses.field(default_factory=dict)
    parts: tuple[tuple[Expression, int], ...] = ()

    @property
    def widths(self):
        """The full widths, read and written."""
        return (self.reads[1] if self.reads else 1), self.writes[1]


def find_units(analysis):
    """The units of work of a network.

    Args:
        analysis: `ChannelAnalysis` of a graph.

    Returns:
        List of `Unit`.
    """
    source: dict = {}  # Values behind layers that cost nothing.
    chains: list[list] = []
    ends: dict = {}  # From the output of a chain to it.
    for node in analysis.graph.nodes:
        if not any(x in analysis.needed for x in node.outputs):
            continue
        rule = analysis.rules[node]
        if _is_free(node, rule):
            value = node.inputs[0] if node.inputs else node.output
            if rule.gate(node) is not None:
                value = rule.gated(node)
            source.update(dict.fromkeys(node.outputs, source.get(value, value)))
            continue
        first = node.inputs[0] if node.inputs else None
        first = source.get(first, first)
        chain = ends.pop(first, None)
        if (
            chain is None
            or len(node.inputs) > 1
            or len(_readers(first, analysis)) > 1
            or not _joins(node, chain, analysis)
        ):
            chain = []
            chains.append(chain)
        chain.append(node)
        ends[node.output] = chain
    units = []
    for chain in chains:
        units += [*_moves(chain[0], analysis), _unit(chain, analysis)]
    return units


def _moves(node, analysis):
    """The moves of a mixed addition, whose sides keep other channels."""
    channels = analysis.channels[node.output]
    if not analysis.rules[node].adds_inputs or channels.axis is None:
        return []
    found = []
    # Without channels on one side nothing is added.
    is_added = _is_added(node, analysis)
    writes = (analysis.live(node.output), channels.size)
    sizes = "x".join(map(str, node.output.shape[1:-1]))
    for value in node.inputs:
        alive = analysis.channels[value].alive
        if alive is channels.alive or value.shape != node.output.shape:
            continue
        exceeds = analysis.algebra.exceeds(channels.alive, alive)
        moves = analysis.algebra.conjunction(exceeds, is_added)
        for kind in _ways(value, node, analysis):
            found.append(
                Unit(
                    f"{kind} to {sizes}x*",
                    [node],
                    node,
                    None,
                    writes,
                    moves=kind,
                    condition=(moves, 1),
                )
            )
    return found


def _is_added(node, analysis):
    """A single value: whether all sides of an addition have a channel."""
    algebra = analysis.algebra
    sides = [algebra.any(analysis.channels[x].alive) for x in node.inputs]
    return algebra.conjunction(*sides)


def _ways(value, node, analysis):
    """How the channels of one side of an addition are moved. Those of a sum so
    far are the first ones of the next sum, and those of the k-th branch are in
    2^(k-1) runs; see `keras_bar.compaction.layout`."""
    before = [_sums(x, analysis) for x in node.inputs]
    if (
        _sums(value, analysis) == max(before)
        and value is node.inputs[before.index(max(before))]
    ):
        return ("pad",)
    runs = 2 ** max(before)
    return ("pad",) * runs if runs <= MOST_PADS else ("gather",)


def _sums(value, analysis):
    """Number of additions, one after the other, that made a tensor."""
    node, count = value.producer, 0
    while node is not None:
        rule = analysis.rules[node]
        if rule.adds_inputs:
            count += 1
            node = max(node.inputs, key=lambda x: _sums(x, analysis)).producer
        elif rule.ties_channels and not rule.has_kernel:
            node = node.inputs[0].producer
        else:
            break
    return count


def _is_free(node, rule):
    if rule.gate(node) is not None or rule.width_gate(node) is not None:
        return True
    return type(node.op).__name__ in _FREE


def _readers(value, analysis):
    """What reads a tensor, behind layers that cost nothing; None stands for the
    user of the model."""
    found = [None] if value in analysis.graph.outputs else []
    for node in value.consumers:
        if _is_free(node, analysis.rules[node]):
            found += [
                y for x in node.outputs[:1] for y in _readers(x, analysis)
            ]
        else:
            found.append(node)
    return found


def _joins(node, chain, analysis):
    """Whether a runtime computes a layer together with those before it."""
    rules = analysis.rules
    if rules[chain[-1]].ends_constants:
        return rules[node].has_kernel
    if rules[node].ends_constants or rules[node].has_kernel:
        return False
    same = node.output.shape == node.inputs[0].shape
    elementwise = rules[node].passes_channels and not hasattr(
        node.op, "pool_size"
    )
    return same and (elementwise or rules[node].subtracts_mean)


def _unit(chain, analysis):
    rules = analysis.rules
    head = next((x for x in chain if rules[x].has_kernel), chain[0])
    output = head.output
    axis = analysis.channels[output].axis
    seen = analysis
    if shared_calls.has_rule(head, analysis):
        seen = shared_calls.of_call(head, analysis)
    live = seen.live(output)
    reads, scalable = None, axis is not None and not rules[head].reason
    writes = (live, output.shape[axis] if axis is not None else 1)
    if axis is None:
        writes = (analysis.algebra.any(live), 1)
    kind = type(head.op).__name__
    if scalable and rules[head].has_kernel:
        mixes = kind in _MIXING.split() and rules[head].is_counted(head)
        if mixes and getattr(head.op, "groups", 1) == 1:
            value = head.inputs[0]
            reads = (
                seen.read(head, 0),
                value.shape[rules[head].axis(head, value)],
            )
        else:
            scalable = rules[head].filters_each_channel
    elif scalable:
        # Each channel is treated by itself; its time is that of its width.
        scalable = rules[head].ties_channels or kind == "Concatenate"
        scalable &= not getattr(head.op, "weights", ()) or (
            rules[head].subtracts_mean
        )
    key = " + ".join(_describe(x, rules[x]) for x in chain)
    axes = _axes(chain[0], analysis) | ({} if axis is None else {output: axis})
    known = axes if scalable else {}
    shapes = [_shape(x, known.get(x)) for x in chain[0].inputs]
    key = f"{key} on {', '.join(shapes)}"
    if not scalable or kind == "EinsumDense":
        key += f" to {_shape(output, known.get(output))}"
    found = [analysis.widths.get(x) for x in (*head.inputs, output)]
    parts = tuple(dict.fromkeys((x.alive, x.size) for x in found if x))
    if rules[head].shares_factors and rules[head].has_kernel:
        each = head.op.kernel.shape[-2]
        parts = (*parts, (rules[head].places_read(head, seen), each))
    rest = {"axes": axes, "parts": parts}
    if rules[chain[-1]].adds_inputs:
        rest["condition"] = (_is_added(head, analysis), 1)
    return Unit(key, chain, head, reads, writes, scalable, **rest)


def _axes(node, analysis):
    """Dict from the inputs of a node to the axis of their channels. Those of
    the model itself, which no analysis knows, are where the output's are."""
    layout = getattr(node.op, "data_format", None)
    target = analysis.channels[node.output].axis
    found = {}
    for value in node.inputs:
        rank = len(value.shape)
        axis = analysis.channels[value].axis
        if axis is None and len(node.inputs) == 1:
            axis = 1 if layout == "channels_first" else rank - 1
        elif axis is None and target is not None:
            # Smaller tensors are broadcast; a mask of attention has no heads.
            axis = rank - len(node.output.shape) + target
            if value.shape[axis] not in (1, node.output.shape[target]) and (
                type(node.op).__name__ != "Concatenate"
            ):
                axis = None
        if axis is not None and 0 < axis < rank:
            found[value] = axis
    return found


def _shape(value, axis):
    """The shape of a tensor in a key; its channels are a width."""
    sizes = list(value.shape)
    if axis is not None:
        sizes[axis] = "*"
    return "x".join(map(str, sizes[1:]))


def _describe(node, rule):
    """The configuration of a layer as text."""
    op = node.op
    if isinstance(op, keras.layers.Layer):
        config = cloning.config_of(op)
    else:
        config = {x: y for x, y in vars(op).items() if not x.startswith("_")}
    defaults = inspect.signature(type(op).__init__).parameters
    parts = []
    for name in sorted(config):
        value = config[name]
        if name in _IRRELEVANT.split() or name.endswith(_IRRELEVANT_ENDS):
            continue
        if name in defaults and _is_default(value, defaults[name].default):
            continue
        if name == "groups" and rule.filters_each_channel:
            continue
        if isinstance(value, dict):
            value = value.get("class_name", "")
        value = getattr(value, "__name__", value)
        if value is None or not isinstance(value, (*_PLAIN, list, tuple)):
            continue
        if isinstance(value, list | tuple):
            value = "x".join(map(str, value))
        if value != "" and value is not False:
            parts.append(f"{name}={value}")
    return f"{type(op).__name__}({' '.join(parts)})"


def _is_default(value, default):
    if isinstance(value, list | tuple):
        is_number = isinstance(default, int)
        default = (default,) * len(value) if is_number else default
        return default == tuple(value)
    return value == default or (value == "linear" and default is None)


_PLAIN = (str, int, float, bool)
