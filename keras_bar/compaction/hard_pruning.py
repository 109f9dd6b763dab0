"""Hard pruning: every gate fixed, every constant where it can be removed."""

import dataclasses

import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import Kernel
from keras_bar.analysis.rules.kernels import Mixing
from keras_bar.analysis.rules.kernels import following_norm
from keras_bar.compaction.resolved_channels import ResolvedChannels
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate

# Relative size of what counts as rounding rather than as a change.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """A place at which hard pruning changed what the network computes.

    Dead channels that hold a constant other than 0 enter a zero-padded
    convolution, which sees the constant end at the border of the picture. The
    convolution no longer reads them; what they contribute on average goes into
    its bias. No other constant loses less.

    Attributes:
        layer: Name of the convolution.
        channels: Number of constant channels that entered it.
        moved: Root mean square of what went into the bias.
        error: Root mean square of what was lost: the deviation from that mean
            near the border.
    """

    layer: str
    channels: int
    moved: float
    error: float


def hard_prune(model, *, allow_unfinished=False):
    """Fixes every gate at its deterministic value.

    The result still has its full size, and computes exactly what
    `keras_bar.compact` makes of it. Hard pruning changes the network only
    where something could not be removed otherwise: see `Adjustment`;
    `keras_bar.explain` lists these places.

    Args:
        model: Gated `keras.Model`. It is left as it is.
        allow_unfinished: Boolean, whether gates may still learn, and the cost
            exceed the budget that the network was being pruned to. Defaults to
            False.

    Returns:
        A new `keras.Model`.

    Raises:
        ValueError: If the model has no gates, pruning is unfinished, or no
            path from the input to the output is left.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model)
    >>> student.get_layer("conv_gate").set_alive(np.arange(8) < 3)
    >>> pruned = keras_bar.hard_prune(student)
    >>> small = keras_bar.compact(student)
    >>> images = np.ones((1, 8, 8, 1))
    >>> expected = pruned.predict(images, verbose=0)
    >>> bool(np.allclose(small.predict(images, verbose=0), expected, atol=1e-5))
    True
    """
    graph = trace.trace(model)
    analysis = ChannelAnalysis(graph)
    cost_model = CostModel(analysis)
    gates = cost_model.gates
    if not gates:
        raise ValueError(
            "There is nothing to prune. Expected a model with gates, made by "
            "`keras_bar.gate`, also to prune a compact model further. "
            f"Received: {model.name!r}, which has no gate"
        )
    masks = alive_masks(gates)
    if not allow_unfinished:
        check_finished(cost_model, masks, model.name)
    check_connected(analysis, masks, model.name)
    pruning = _Pruning(ResolvedChannels(analysis, masks))
    pruned = trace.replay(graph, pruning.rebuild)
    pruned.hard_pruning_adjustments = pruning.adjustments
    pruned.ungated_reasons = getattr(model, "ungated_reasons", {})
    return pruned


def check_finished(cost_model, masks, name):
    """Raises a ValueError unless every gate is fixed, within the budget.

    Args:
        cost_model: `CostModel`.
        masks: Dict from gate to its alive channels, booleans `(channels,)`.
        name: String, what to call the model.
    """
    learning = sum(not gate.is_fixed for gate in cost_model.gates)
    metric, budget = _limit(cost_model) or (None, np.inf)
    cost = cost_model.hard(masks)
    if not learning and (metric is None or cost[metric] <= budget):
        return
    reason = "its gates were changed after it"
    if learning:
        reason = f"{learning} of {len(cost_model.gates)} gates still learn"
    raise ValueError(
        f"The pruning of this model is not finished: {reason}. Expected a "
        "model whose `fit` with a regularizer of keras_bar ran to its end; "
        "resume it with the same callbacks and `initial_epoch`, or pass "
        "`allow_unfinished=True` to take the gates as they are. "
        f"Received: {name!r} with {_shares(cost_model, cost, metric, budget)}"
    )


def _limit(cost_model):
    """Metric and budget that the network was last pruned to, or None."""
    for node in cost_model.analysis.graph.nodes:
        if isinstance(node.op, BudgetState) and node.op.limit:
            return node.op.limit
    return None


def _shares(cost_model, cost, metric, budget):
    """The cost, and the budget where there is one, for an error message."""
    full = cost_model.full
    if metric is None:
        return f"{cost['volume'] / full['volume']:.4g} of the volume, no budget"
    return (
        f"{cost[metric] / full[metric]:.4g} of the {metric} "
        f"({cost[metric]:.0f}), budget {budget / full[metric]:.4g} "
        f"({budget:.0f})"
    )


def check_connected(analysis, masks, name):
    """Raises a ValueError unless every output depends on an input."""
    if not analysis.is_connected(masks):
        raise ValueError(
            "The network is disconnected: its output no longer depends on "
            "its input. Expected gates that leave a path open. Received: "
            f"{name!r} with every path closed"
        )


class _Pruning:
    """Copies a network with its gates fixed and its constants moved.

    Args:
        resolved: `ResolvedChannels` of the gated network.
    """

    def __init__(self, resolved):
        self.resolved = resolved
        self.analysis = resolved.analysis
        self.adjustments = []
        self._copies = {}
        self._mean_shifts = {}

    def rebuild(self, node, tensors):
        """The new output tensors of a node."""
        copy = self._copies.get(id(node.op))
        if copy is None:
            changes = {"use_bias": True} if self._gains_bias(node) else {}
            copy = trace.clone(node.op, node.name, **changes)
            self._copies[id(node.op)] = copy
        outputs = trace.call(copy, node, tensors)
        # A new bias comes last.
        trace.copy_state(node.op, copy, strict=not self._gains_bias(node))
        if isinstance(copy, ChannelGate):
            copy.fix()
        if isinstance(self.analysis.rules[node], Kernel):
            self._move_constants(node, copy)
        if node in self._mean_shifts:
            mean = to_numpy(copy.moving_mean) - self._mean_shifts[node]
            copy.moving_mean.assign(mean)
        return outputs

    def _gains_bias(self, node):
        rule = self.analysis.rules[node]
        if not isinstance(rule, Mixing):
            return False
        gains = rule.gains_bias(node, self.analysis)
        return gains is not None and self.resolved.holds(gains)

    def _move_constants(self, node, copy):
        """Moves the constants that enter a layer into its bias."""
        rule, resolved = self.analysis.rules[node], self.resolved
        if self._gains_bias(node):
            copy.bias.assign(np.zeros(copy.bias.shape))
        constants = rule.entering(node, resolved)
        ends = rule.sees_end(node, self.analysis)
        # Channel by channel a constant may stay one, unless it ends.
        if not np.any(constants) or not (ends or isinstance(rule, Mixing)):
            return
        response = rule.response(node, resolved)
        shift = response.mean(axis=0)
        if rule.takes_shift(node, self.analysis) or self._gains_bias(node):
            self._shift(node, copy, shift)
        else:
            shift = np.zeros_like(shift)
        rule.forget(copy, constants != 0)
        error = _rms(response - shift)
        if ends and error > ROUNDING * _rms(response):
            count = int(np.sum(constants != 0))
            self.adjustments.append(
                Adjustment(node.name, count, _rms(shift), error)
            )

    def _shift(self, node, copy, shift):
        if copy.use_bias:
            copy.bias.assign(to_numpy(copy.bias) + shift)
        else:
            self._mean_shifts[following_norm(node, self.analysis)] = shift


def _rms(array):
    return float(np.sqrt(np.mean(np.square(array))))
