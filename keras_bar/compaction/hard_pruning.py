"""Hard pruning: fixes every gate, and moves constants to removable places."""

import dataclasses
import warnings

import keras
import numpy as np

from keras_bar.analysis import trace
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.cloning import named_in_errors
from keras_bar.analysis.cloning import without_random_values
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import following_norm
from keras_bar.compaction.aligning import aligned_copy
from keras_bar.compaction.copying import copied
from keras_bar.compaction.explaining import explanation_of
from keras_bar.compaction.resolved_channels import ResolvedChannels
from keras_bar.costs import CostModel
from keras_bar.costs import alive_masks
from keras_bar.layers import BudgetState

# Largest relative change that counts as rounding.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Adjustment:
    """A place at which hard pruning changed the network's output.

    Dead channels that hold a constant other than 0 enter a zero-padded
    convolution, which sees the constant end at the border of the image. The
    convolution no longer reads them, and their mean contribution goes into its
    bias. No other constant has a smaller squared error.

    Attributes:
        layer: Name of the convolution.
        channels: Number of constant channels that entered it.
        moved: Root mean square of the contribution moved into the bias.
        error: Root mean square of the loss: the deviation from that mean near
            the border.
    """

    layer: str
    channels: int
    moved: float
    error: float


@dataclasses.dataclass(frozen=True)
class HardPruned:
    """A hard-pruned network, as the analysis of the gated one and the layers
    that have other weights.

    Attributes:
        model: The gated `keras.Model`.
        cost_model: Its `CostModel`.
        masks: Dict from gate to its alive channels, booleans `(channels,)`.
        adjustments: List of `Adjustment`.
        weights: `OwnWeights`, the layers of the hard-pruned network.
    """

    model: keras.Model
    cost_model: CostModel
    masks: dict
    adjustments: list
    weights: "OwnWeights"

    @property
    def analysis(self):
        """`ChannelAnalysis` of the gated network. The hard-pruned network has
        the same channels and differs only in its weights."""
        return self.cost_model.analysis

    @property
    def explanation(self):
        """`Explanation` of the hard-pruned network."""
        found = explanation_of(self.model, self.cost_model)
        return dataclasses.replace(found, adjustments=self.adjustments)


class OwnWeights:
    """The layers of a graph, copied when their weights are to change."""

    def __init__(self):
        self._copies: dict = {}

    def __getitem__(self, node):
        """The layer of a node, which may be that of the graph."""
        return self._copies.get(node.shared_calls[0], node.op)

    def own(self, node, **changes):
        """A copy of the layer of a node, to be changed; the same each time.

        Args:
            node: `Node`, a call of a built layer. All calls get the copy.
            **changes: Entries of its configuration that change.
        """
        node = node.shared_calls[0]
        if node not in self._copies:
            copy = trace.clone(node.op, node.name, node, **changes)
            with named_in_errors(copy), without_random_values(copy):
                copy.build_from_config(node.op.get_build_config())
            # The last variable may be a new bias.
            trace.copy_state(node.op, copy, strict=not changes)
            self._copies[node] = copy
        return self._copies[node]

    def install(self):
        """Puts the copies into the graph."""
        for first, copy in self._copies.items():
            for node in first.shared_calls:
                node.op = copy


def hard_prune(
    model: keras.Model, *, allow_unfinished: bool = False
) -> keras.Model:
    """Fixes every gate at its deterministic value.

    The result still has its full size, and its output equals that of
    `keras_bar.compact(model)`. Hard pruning only changes the network where
    something could not be removed otherwise: `keras_bar.explain` lists these
    places as `adjustments`.

    Args:
        model: Gated `keras.Model`. It is not changed.
        allow_unfinished: Boolean, whether gates may still be learning and the
            cost may exceed the budget. Defaults to False.

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
    pruned = fix_gates(model, allow_unfinished)
    copy = copied(
        pruned.analysis.graph, lambda _, gate: gate.fix(), pruned.weights
    )
    copy.hard_pruning_adjustments = pruned.adjustments
    copy.ungated_reasons = getattr(model, "ungated_reasons", {})
    return copy


def fix_gates(model, allow_unfinished, align=1):
    """Hard-prunes a model, without building the result.

    Args:
        model, allow_unfinished: As for `hard_prune`.
        align: Integer; numbers of open channels are rounded down to its
            multiples.

    Returns:
        A `HardPruned`.
    """
    cost_model = CostModel(ChannelAnalysis(trace.trace(model)))
    analysis, gates = cost_model.analysis, cost_model.gates
    if not gates:
        raise ValueError(
            "There is nothing to prune. Expected a model with gates, made by "
            "`keras_bar.gate`; a compact model has to be gated again to be "
            f"pruned further. Received: {model.name!r}, which has no gate"
        )
    masks = alive_masks(gates)
    if not allow_unfinished:
        check_finished(cost_model, masks, model.name)
    if align > 1:
        model = aligned_copy(model, analysis.graph, masks, align)
        return fix_gates(model, allow_unfinished=True)
    check_connected(analysis, masks, model.name)
    pruning = _Pruning(ResolvedChannels(analysis, masks))
    for node, rule in analysis.rules.items():
        if rule.folds_constants and node is node.shared_calls[0]:
            pruning.move_constants(node)
    return HardPruned(
        model, cost_model, masks, pruning.adjustments, pruning.weights
    )


def check_finished(cost_model, masks, name):
    """Raises a ValueError unless every gate is fixed, within the budget.

    Args:
        cost_model: `CostModel`.
        masks: Dict from gate to its alive channels, booleans `(channels,)`.
        name: Name of the model, for the error message.
    """
    learning = sum(not gate.is_fixed for gate in cost_model.gates)
    limits = _limits(cost_model)
    cost = cost_model.hard(masks)
    if not learning and all(cost[x] <= most for x, most in limits.items()):
        return
    reason = "its cost is above the budget"
    if learning:
        reason = f"{learning} of {len(cost_model.gates)} gates still learn"
    raise ValueError(
        f"The pruning of this model is not finished: {reason}. Expected a "
        "model whose `fit` with a regularizer of keras_bar ran to its end; "
        "resume it with the same callbacks and `initial_epoch`, or pass "
        "`allow_unfinished=True` to take the gates as they are. "
        f"Received: {name!r} with {_shares(cost_model.full, cost, limits)}"
    )


def warn_above_budget(cost_model, united, masks):
    """Warns if the channels of regular connectivity exceed a budget.

    Args:
        cost_model: `CostModel`.
        united: Dict from gate to booleans `(channels,)`, what is kept.
        masks: Dict like it, the gates' own alive channels.
    """
    limits = _limits(cost_model)
    cost = cost_model.hard(united, masks)
    if any(cost[x] > most for x, most in limits.items()):
        shares = _shares(cost_model.full, cost, limits)
        warnings.warn(
            "With regular connectivity, which keeps the union of the channels "
            "of a residual stream, the compact network exceeds the budget: "
            f"{shares}.",
            stacklevel=4,
        )


def _limits(cost_model):
    """Dict from metric to the budget that the network was last pruned to."""
    for node in cost_model.analysis.graph.nodes:
        if isinstance(node.op, BudgetState) and node.op.limits:
            return node.op.limits
    return {}


def _shares(full, cost, limits):
    """The cost, and the budgets where there are any, for an error message."""
    if not limits:
        return f"{cost['volume'] / full['volume']:.4g} of the volume, no budget"
    return "; ".join(
        f"{cost[metric] / full[metric]:.4g} of the {metric} "
        f"({cost[metric]:.0f}), budget {budget / full[metric]:.4g} "
        f"({budget:.0f})"
        for metric, budget in limits.items()
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
    """Moves the constants of dead channels to places that can be removed.

    Args:
        resolved: `ResolvedChannels` of the gated network.
    """

    def __init__(self, resolved):
        self.resolved = resolved
        self.analysis = resolved.analysis
        self.adjustments = []
        self.weights = OwnWeights()

    def move_constants(self, node):
        """Moves the constants that enter a layer into its bias."""
        rule, resolved = self.analysis.rules[node], self.resolved
        gains = self._gains_bias(node)
        if gains:
            copy = self.weights.own(node, **rule.bias_config(node.op, True))
            copy.bias.assign(np.zeros(copy.bias.shape))
        constants = rule.entering(node, resolved)
        ends = rule.sees_end(node, self.analysis)
        # A layer that does not mix channels maps constants to constants, unless
        # it sees them end at a border.
        if not np.any(constants) or not (ends or rule.mixes_channels):
            return
        response = rule.response(node, resolved)
        shift = response.mean(axis=0)
        if gains or rule.takes_shift(node, self.analysis):
            self._shift(node, shift)
        else:
            shift = np.zeros_like(shift)
        rule.forget(self.weights.own(node), constants != 0)
        error = _rms(response - shift)
        if ends and error > ROUNDING * _rms(response):
            count = int(np.sum(constants != 0))
            self.adjustments.append(
                Adjustment(node.name, count, _rms(shift), error)
            )

    def _gains_bias(self, node):
        gains = self.analysis.rules[node].gains_bias(node, self.analysis)
        return gains is not None and self.resolved.holds(gains).item()

    def _shift(self, node, shift):
        if self.analysis.rules[node].has_bias(self.weights[node]):
            copy = self.weights.own(node)
            copy.bias.assign(to_numpy(copy.bias) + shift)
        else:
            norm = self.weights.own(following_norm(node, self.analysis))
            norm.moving_mean.assign(to_numpy(norm.moving_mean) - shift)


def _rms(array):
    return float(np.sqrt(np.mean(np.square(array))))
