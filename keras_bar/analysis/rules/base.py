"""The base class of rules."""

import dataclasses
import math

import keras
import numpy as np

from keras_bar.analysis import rule_registry


@dataclasses.dataclass(frozen=True)
class Term:
    """A summand of a cost: `coefficient * prod(sum(factor) for factors)`.

    Attributes:
        metric: `"volume"`, `"flops"` or `"params"`.
        coefficient: Number.
        factors: Tuple of `(Expression, channels)`; a single value counts for
            all of the channels.
        conditions: Tuple of `(Expression, 1)`, single values: whether the
            summand counts. They are evaluated at the gates themselves, also
            where more channels are computed than these leave open.
    """

    metric: str
    coefficient: float
    factors: tuple = ()
    conditions: tuple = ()


class Rule:
    """How one kind of layer treats channels.

    A kind of layer is one subclass and nothing else: its attributes say which
    layers it holds for and what these do, its first methods describe them to
    the channel analysis with expressions, and the others compute with numbers
    once it is known which channels are dead.

    Attributes:
        layers: Class names of Keras layers, separated by spaces.
        operations: Class names of `keras.ops` operations.
        reason: Why the layer needs every channel; empty if it does not.
        prunable: Whether a gate behind it can prune its channels.
        only_hidden: Whether it is pruned, and counts in the volume, only if no
            output of the model is made of its channels: a dense layer that
            gives the logits has none to lose.
        passes_channels: Whether output channel i depends on input channel i
            alone and is constant where that is, so that a gate may as well
            stand in front of the layer.
        ties_channels: Whether output channel i is made of channel i of every
            input of full size, so that all keep the same channels.
        starts_channels: Whether a gate behind it is the only one of channels
            that it ties to those of its inputs.
        mixes_channels: Whether every output channel may depend on every input
            channel.
        moves_channels: Whether it places input channels by index.
        unites_channels: Whether its output keeps the union of the channels of
            its inputs.
        folds_constants: Whether constants that enter it can be moved into its
            bias.
        subtracts_mean: Whether it subtracts `moving_mean` from its input, so
            that a constant in front of it can be moved there.
        ends_constants: Whether a constant that enters it is surrounded by
            zeros behind it.
        has_kernel: Whether it convolves or multiplies its input with a kernel,
            `Kernel`.
        reads_linearly: Whether its output, before bias and activation, is the
            kernel's sum over input channels. (A separable convolution first
            applies another kernel to each channel.)
        filters_each_channel: Whether it applies kernels of its own to each
            channel; `copies(layer)` says how many.
        adds_inputs: Whether its output is a weighted sum of its inputs.
        restores: Whether it needs every channel, but gates may be in front of
            it: dead channels are restored.
        groups_channels: Whether a gate behind it closes groups of its input.
        flattens: Whether each input channel becomes several channels of the
            output, those of `features`.
        reads_inputs: Whether its output depends on its inputs.
        shares_factors: Whether gates beside it have a `grouping(node)`.
    """

    layers = ""
    operations = ""
    reason = ""
    prunable = False
    only_hidden = False
    passes_channels = False
    ties_channels = False
    starts_channels = False
    mixes_channels = False
    moves_channels = False
    unites_channels = False
    folds_constants = False
    subtracts_mean = False
    ends_constants = False
    has_kernel = False
    reads_linearly = False
    filters_each_channel = False
    adds_inputs = False
    restores = False
    groups_channels = False
    flattens = False
    reads_inputs = True
    shares_factors = False

    def __init_subclass__(cls):
        super().__init_subclass__()
        for is_layer, attribute in ((True, "layers"), (False, "operations")):
            for name in vars(cls).get(attribute, "").split():
                rule_registry.add_kind(is_layer, name, cls)

    def specialized(self, node, analysis):
        """The rule for a special case of the layer; by default this one."""
        return self

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
        """The need for the output, rounded up to channels that the layer can
        compute."""
        return need

    def propagate_needed(self, node, analysis):
        """List of `Expression`, the need for each input."""
        raise NotImplementedError

    def gate(self, node):
        """The gate that multiplies a tensor at this node, or None."""
        return None

    def width_gate(self, node):
        """The gate that multiplies the widths of heads at this node, or
        None."""
        return None

    def only_scales(self, value, node):
        """Whether an input scales the channels of another and has none of its
        own to keep."""
        return False

    def reads_patches(self, layer):
        """Whether its output is a matrix of its kernel times `patches`."""
        return False

    def output_sizes(self, node, array):
        """Number of positions of the output along each axis but the channels,
        for an input array."""
        raise NotImplementedError

    def patches(self, node, array, places):
        """What the kernel reads of an input array for some output positions.

        Args:
            node: `Node`.
            array: Array like the input.
            places: Tuple of integer arrays `(positions,)`: the sample, and the
                output position along each of `output_sizes`.

        Returns:
            Array `(positions, weights)`, so that its product with the kernel,
            `(weights, filters)`, is the output before bias and activation.
        """
        raise NotImplementedError

    def is_counted(self, node):
        """Whether `terms` counts every multiply-add of the layer."""
        return True

    def terms(self, node, analysis):
        """List of `Term`, the cost of the layer."""
        return []

    def gains_bias(self, node, analysis):
        """A single value: whether constants enter it that need a bias it does
        not have. None if that never happens."""
        return None

    def output_weights(self, layer, factors):
        """Pairs of a weight and what to multiply it by, an array that is
        broadcast, to multiply the output channels by `factors`, `(channels,)`.
        Empty if no weights do that."""
        return []

    def width_weights(self, layer, factors):
        """Like `output_weights`, to multiply the features that all heads have
        in common by `factors`, `(widths,)`."""
        return []

    def order_ties(self, node, analysis):
        """The tensors that store their channels in the same order.

        Returns:
            List of tuples of a `Value`, some of its channels, another `Value`,
            and those of its channels that they are.
        """
        known = [
            x for x in node.inputs if analysis.channels[x].axis is not None
        ]
        output = analysis.channels[node.output]
        if not self.ties_channels or output.axis is None or not known:
            return []
        everything = np.arange(output.size)
        return [
            (node.output, everything, value, everything)
            for value in [*known, *node.outputs[1:]]
            if analysis.channels[value].size == output.size
        ]

    def parts(self, node, analysis):
        """Pairs of an output and the channels of the input that it holds; empty
        for all layers but those that split and slice."""
        return []

    def output_order(self, node, analysis, order_of):
        """All output channels in the order that the layer prescribes.

        Args:
            node: `Node`.
            analysis: `ChannelAnalysis`.
            order_of: Function from an input `Value` to its channels, in order.

        Returns:
            Integer array, or None if any order will do.
        """
        return None

    def constants(self, node, resolved):
        """Constants of the output's dead channels, shape `(channels,)`."""
        raise NotImplementedError

    def constants_of(self, value, node, resolved):
        """Constants of one of several outputs."""
        return self.constants(node, resolved)

    def rebuild(self, node, builder):
        """List of output tensors in the compact model."""
        raise NotImplementedError

    def operand(self, node, index, writer):
        """The tensor that the compact layer reads, of the input `index`; with
        a `keras_bar.analysis.arena_program.ProgramWriter`."""
        return writer.like_output(node, index)

    def channels_between(self, node, count):
        """Number of channels of a tensor that the layer makes on the way from
        an input of `count` channels to its output; 0 if it makes none."""
        return 0

    def products(self, node):
        """Number of the products of queries and keys that attention makes, all
        heads together; 0 if the layer is no attention."""
        return 0

    def run(self, node, writer):
        """Adds what the compact layer does to the program that is written."""
        writer.run_layer(node)


def has_full_shape(value, node):
    """Whether an operand is as large as the output, along the batch, too."""
    return value.shape == node.output.shape


def once(numbers):
    """Every number once, in order of its first place."""
    return np.array(list(dict.fromkeys(numbers.tolist())), int)


def members(groups, size):
    """The channels of some groups of `size` channels."""
    return (groups[:, None] * size + np.arange(size)).reshape(-1)


def product(dims):
    """Product of dimensions; NaN where one is unknown, as then is the cost."""
    return math.prod(math.nan if x is None else x for x in dims)


def reshaped(node, shape):
    """Configuration entries of a reshape to another shape, which has the batch
    first; of its unknown sizes, one at most is found out."""
    if isinstance(node.op, keras.layers.Layer):
        return {"target_shape": [-1 if x is None else x for x in shape[1:]]}
    target = [-1 if x is None else int(x) for x in shape]
    if -1 not in target and tuple(node.op.newshape)[:1] == (-1,):
        target[0] = -1  # The batch of a sum with a weight is no 1.
    return {"newshape": target}


def positions(value, axis):
    """Number of positions per channel and sample."""
    return product(d for i, d in enumerate(value.shape) if i not in (0, axis))


def channel_axis(data_format, rank):
    """Index of the channel axis of a tensor of `rank` dimensions."""
    return rank - 1 if data_format == "channels_last" else 1


def agree(channels, axis):
    """Whether a layer that works along `axis` may read these channels."""
    return channels.axis is None or channels.axis == axis


def disagreement(node, analysis):
    """Why inputs do not share one channel axis, or None. Those of fewer
    dimensions have the last ones of the output."""
    rank = len(node.output.shape)
    axes = {
        rank - len(x.shape) + c.axis
        for x, c in zip(node.inputs, analysis.inputs(node), strict=True)
        if c.axis is not None
    }
    if len(axes) > 1:
        return "its inputs carry their channels along different axes"
    if any(
        size_along(x, axis, rank) is None for x in node.inputs for axis in axes
    ):
        return "it does not know its number of channels"
    return None


def size_along(value, axis, rank):
    """Size of an operand along an axis of a result of `rank` dimensions, to
    which operands of fewer dimensions are broadcast: their last ones fit."""
    place = axis - rank + len(value.shape)
    return value.shape[place] if place >= 0 else 1


def along(vector, axis, rank):
    """A channel vector shaped to broadcast against a tensor."""
    shape = [1] * rank
    shape[axis] = -1
    return np.reshape(vector, shape)


def to_numpy(tensor):
    """A tensor or variable as float64."""
    return keras.ops.convert_to_numpy(tensor).astype("float64")
