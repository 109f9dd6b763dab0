"""What a rule answers about a layer, and the boundary for all others."""

import dataclasses
import math

import keras
import numpy as np

from keras_bar.analysis import trace


@dataclasses.dataclass(frozen=True)
class Term:
    """A summand of a cost: `coefficient * prod(sum(factor) for factors)`.

    Attributes:
        metric: `"volume"`, `"flops"` or `"params"`.
        coefficient: Number.
        factors: Tuple of `(Expression, channels)`; a single value counts for
            all of the channels.
        conditions: Tuple of `(Expression, 1)`, single values: whether the
            summand counts. They are asked of the gates themselves, also where
            more channels are computed than these leave open.
    """

    metric: str
    coefficient: float
    factors: tuple = ()
    conditions: tuple = ()


class Rule:
    """How one kind of layer treats channels.

    The first methods describe it to the channel flow, with expressions; the
    others compute with numbers once it is known which channels are dead.
    """

    def refuse(self, node, analysis):
        """The reason why this rule does not hold for the node, or None."""
        return None

    def restored_inputs(self, node, analysis):
        """Indices of inputs that must be restored to full width."""
        return ()

    def propagate_alive(self, node, analysis):
        """List of `Channels`, one per output."""
        raise NotImplementedError

    def round_up(self, node, need, analysis):
        """The need for the output, rounded up to what can be computed."""
        return need

    def propagate_needed(self, node, analysis):
        """List of `Expression`, the need for each input."""
        raise NotImplementedError

    def terms(self, node, analysis):
        """List of `Term`, the cost of the layer."""
        return []

    def constants(self, node, resolved):
        """Constants of the output's dead channels, shape `(channels,)`."""
        raise NotImplementedError

    def rebuild(self, node, builder):
        """List of output tensors in the compact model."""
        raise NotImplementedError


class Boundary(Rule):
    """A layer that needs every channel: what enters it is restored to full
    width.

    Args:
        reason: Why; shown to the user.
        rule: The rule of its kind, which knows its costs; None for a layer
            nothing is known of.
    """

    def __init__(self, reason, rule=None):
        self.reason = reason
        self.rule = rule

    def restored_inputs(self, node, analysis):
        return [i for i, x in enumerate(node.inputs) if analysis.removable(x)]

    def propagate_alive(self, node, analysis):
        return [analysis.all_alive(x) for x in node.outputs]

    def propagate_needed(self, node, analysis):
        return [self._is_read([node], analysis)] * len(node.inputs)

    def _is_read(self, nodes, analysis):
        """A single value: whether anyone reads one of these nodes."""
        outputs = [x for node in nodes for x in node.outputs]
        needs = [analysis.needed[x] for x in outputs if x in analysis.needed]
        return analysis.algebra.disjunction(*map(analysis.algebra.any, needs))

    def terms(self, node, analysis):
        terms = self.rule.terms(node, analysis) if self.rule else []
        costs = [term for term in terms if term.metric != "params"]
        if node is node.shared_calls[0]:
            # Its weights exist once, however often it is called.
            weights = getattr(node.op, "weights", ())
            count = sum(math.prod(x.shape) for x in weights)
            factor = (self._is_read(node.shared_calls, analysis), 1)
            costs.append(Term("params", count, (factor,)))
        return costs

    def rebuild(self, node, builder):
        tensors = {x: builder.restored(x) for x in node.inputs}
        layer = builder.clone(node)
        outputs = trace.call(layer, node, tensors)
        trace.copy_state(node.op, layer)
        return outputs


def product(dims):
    """Product of dimensions; NaN where one is unknown, so that a cost that
    depends on it is not silently wrong."""
    return math.prod(math.nan if x is None else x for x in dims)


def positions(value, axis):
    """Number of places per channel, per sample."""
    return product(d for i, d in enumerate(value.shape) if i not in (0, axis))


def channel_axis(data_format, rank):
    """Index of the channel axis of a tensor of `rank` dimensions."""
    return rank - 1 if data_format == "channels_last" else 1


def agree(channels, axis):
    """Whether a layer that works along `axis` may read these channels."""
    return channels.axis is None or channels.axis == axis


def along(vector, axis, rank):
    """A channel vector shaped to broadcast against a tensor."""
    shape = [1] * rank
    shape[axis] = -1
    return np.reshape(vector, shape)


def to_numpy(tensor):
    """A tensor or variable as float64."""
    return keras.ops.convert_to_numpy(tensor).astype("float64")
