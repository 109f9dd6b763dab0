"""What a rule answers about a layer, and the boundary for all others."""

import dataclasses
import math

import numpy as np

from keras_bar.graph import trace


@dataclasses.dataclass(frozen=True)
class Term:
    """A summand of a cost: `coefficient * prod(sum(factor) for factors)`.

    Attributes:
        metric: `"volume"`, `"flops"` or `"params"`.
        coefficient: Number.
        factors: Tuple of `(Expression, channels)`; a single value counts for
            all of the channels.
    """

    metric: str
    coefficient: float
    factors: tuple = ()


class Rule:
    """How one kind of layer treats channels.

    The first methods describe it to the channel flow, with expressions; the
    others compute with numbers once it is known which channels are dead.
    """

    def refuse(self, node, flow):
        """The reason why this rule does not hold for the node, or None."""
        return None

    def restored_inputs(self, node, flow):
        """Indices of inputs that must be restored to full width."""
        return ()

    def forward(self, node, flow):
        """List of `Channels`, one per output."""
        raise NotImplementedError

    def backward(self, node, flow):
        """List of `Expression`, the need for each input."""
        raise NotImplementedError

    def can_zero(self, node, flow):
        """Whether constants in the output can be made 0 in the weights."""
        return False

    def zero(self, node, dead, surgeon):
        """Makes the constants of the output channels `dead` 0."""
        raise NotImplementedError

    def terms(self, node, flow):
        """List of `Term`, the cost of the layer."""
        return []

    def constants(self, node, numbers):
        """Constants of the output's dead channels, shape `(channels,)`."""
        raise NotImplementedError

    def rebuild(self, node, builder):
        """List of output tensors in the compact model."""
        raise NotImplementedError


class Boundary(Rule):
    """A layer nothing is known of: what enters it is restored to full width.

    Args:
        reason: Why; shown to the user.
    """

    def __init__(self, reason):
        self.reason = reason

    def restored_inputs(self, node, flow):
        return [i for i, x in enumerate(node.inputs) if flow.removable(x)]

    def forward(self, node, flow):
        return [flow.all_alive(x) for x in node.outputs]

    def backward(self, node, flow):
        need = flow.algebra.disjunction(
            *(
                flow.algebra.any(flow.needed[x])
                for x in node.outputs
                if x in flow.needed
            )
        )
        return [need] * len(node.inputs)

    def terms(self, node, flow):
        built = (
            (self.backward(node, flow)[0], 1)
            if node.inputs
            else (flow.algebra.full, 1)
        )
        weights = getattr(node.op, "weights", [])
        count = sum(math.prod(x.shape) for x in weights)
        return [Term("params", count, (built,)), *self.grouped(node, built)]

    def grouped(self, node, built):
        """Volume and FLOPs of a grouped convolution: it cannot be pruned, but
        it computes."""
        if getattr(node.op, "groups", 1) == 1:
            return []
        kernel = node.op.kernel.shape
        shape = node.output.shape[1:]
        return [
            Term("volume", product(shape), (built,)),
            Term(
                "flops",
                2 * math.prod(kernel[:-1]) * product(shape),
                (built,),
            ),
        ]

    def constants(self, node, numbers):
        return None

    def rebuild(self, node, builder):
        tensors = {x: builder.restored(x) for x in node.inputs}
        layer = builder.clone(node)
        outputs = trace.call(layer, node, tensors)
        builder.copy_state(node.op, layer)
        return outputs


def product(dims):
    """Product of dimensions; NaN where one is unknown, so that a cost that
    depends on it is not silently wrong."""
    return math.prod(math.nan if x is None else x for x in dims)


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
