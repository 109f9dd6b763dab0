"""Registration of rules for custom layers."""

import functools
import inspect
import math
from collections.abc import Callable

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import comparing
from keras_bar.analysis import experiments
from keras_bar.analysis import observing
from keras_bar.analysis import rule_registry
from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.channelwise import Channelwise
from keras_bar.analysis.rules.channelwise import Localized
from keras_bar.analysis.rules.kernels import Dense
from keras_bar.analysis.rules.observed import Observed
from keras_bar.analysis.rules.observed import Unknown

_WORDS: dict[str, Callable[[], Rule]] = {
    "elementwise": functools.partial(Unknown, registered=True),
    "pointwise": Dense,
}


def register_rule(layer: type, like: str | type[Rule] | Rule) -> None:
    """Registers how a custom layer treats channels.

    This is seldom necessary: keras_bar unrolls a layer without a rule into its
    sublayers and operations, or runs it on random input to find out whether it
    keeps channels apart. `keras_bar.explain` lists the layers for which both
    fail.

    A layer with a kernel, and a layer with one input and one output that keeps
    channels apart, is checked: a smaller copy must compute the same on random
    input. The rule of a layer that keeps channels apart must also count all of
    its weights. If the check fails, the layer keeps all of its channels, and
    `explain` gives the reason.

    Args:
        layer: Class of the layer. The rule does not hold for its subclasses.
        like: How the layer treats channels. `"elementwise"`: every number of
            the output depends on the number at the same place of the input
            alone; weights are scalars or have one entry per channel.
            `"pointwise"`: the layer mixes the channels at each position, like
            `Dense`, with the weights `kernel` `(inputs, units)` and `bias`
            `(units,)`, and with the arguments and attributes `units`,
            `activation` and `use_bias`. The name of a layer or operation of
            Keras, such as `"Conv2D"` or `"Add"`: the layer has the behaviour,
            the arguments and the attributes of this one, as a subclass has. A
            `keras_bar.analysis.rules.Rule`, class or instance: for new kinds of
            layers.

    Raises:
        ValueError: If an argument is wrong.

    Example:

    >>> @keras.saving.register_keras_serializable()
    ... class ScaledDense(keras.layers.Dense):
    ...     def call(self, inputs):
    ...         return super().call(inputs / 8.0)
    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     ScaledDense(4),
    ... ])
    >>> keras_bar.register_rule(ScaledDense, like="pointwise")
    >>> keras_bar.explain(model).gated
    ['conv']
    """
    if not inspect.isclass(layer) or not issubclass(layer, keras.Operation):
        raise ValueError(
            "Rules are registered for classes of layers. Expected a subclass "
            "of `keras.Layer`, not an instance. "
            f"Received: layer={layer!r}"
        )
    if rule_registry.is_known_class(layer):
        raise ValueError(
            "Layers of Keras and of keras_bar have their rules already. "
            f"Expected a custom class. Received: layer={layer!r}"
        )
    rule_registry.add_class(layer, _maker(like))


def _maker(like):
    """A function that returns the rule that `like` stands for."""
    if isinstance(like, Rule):
        return lambda: like
    if inspect.isclass(like) and issubclass(like, Rule):
        return like
    if isinstance(like, str):
        rule = _WORDS.get(like) or rule_registry.kind_named(like)
        if rule is not None:
            return rule
    raise ValueError(
        "Unknown way to treat channels. Expected "
        f"{', '.join(map(repr, _WORDS))}, the name of a layer or an operation "
        "of Keras that keras_bar knows, such as 'Conv2D', or a "
        f"`keras_bar.analysis.rules.Rule`. Received: like={like!r}"
    )


def contradiction(rule, node, analysis):
    """Why a registered rule does not hold for a layer that keeps channels
    apart, or has a kernel, in a sentence; None if nothing speaks against it.
    """
    apart = (
        rule.passes_channels
        and not isinstance(rule, Observed)
        and len(node.inputs) == len(node.outputs) == 1
    )
    if not (apart or rule.reads_linearly):
        return None
    try:
        if apart:
            return _test_apart(rule, node, analysis)
        with keras_internals.undisturbed(node.op):
            return _test_kernel(rule, node)
    except experiments.NotChannelwise as error:
        return str(error)
    except Exception as error:  # Whatever the user's code raises.
        first = comparing.first(error.__cause__ or error)
        return f"it cannot be made for fewer channels: {first}"


def _test_apart(rule, node, analysis):
    """Observes whether a layer keeps channels apart, and compares its weights
    with those that the rule counts."""
    (channels,) = rule.propagate_alive(node, analysis)
    source = analysis.inputs(node)[0]
    if source.axis is not None and channels.axis is not None:
        moved = (
            len(node.output.shape) != len(node.inputs[0].shape)
            or channels.axis != source.axis
        )
        behaviour = observing.observe(
            node, source.axis, channels.axis if moved else None
        )
        local = isinstance(rule, Localized)
        if not (local or behaviour.preserves_constants):
            return "it maps constants to values that differ by position"
        zero = isinstance(rule, Channelwise) and rule.preserves_zero(node)
        if zero and not behaviour.preserves_zero:
            return "it does not map zeros to zeros"
    analysis.channels[node.output] = channels
    counted = sum(
        term.coefficient * math.prod(size for _, size in term.factors)
        for term in rule.terms(node, analysis)
        if term.metric == "params"
    )
    if counted != sum(math.prod(x.shape) for x in node.op.weights):
        return "it has weights that the rule does not count"
    return None


def _test_kernel(rule, node):
    """Compares a layer, on input some of whose channels are 0, with one for
    the other channels, and with one without bias and activation."""
    value, rng = node.inputs[0], np.random.default_rng(0)
    axis, last = rule.axis(node, value), rule.axis(node, node.output)
    size = comparing.SIZES[0]
    shape = [comparing.EXAMPLES, *(d or size for d in value.shape[1:])]
    reads = _some(rng, shape[axis])
    writes = _some(rng, node.output.shape[last])
    x = rng.normal(size=shape).astype("float32")
    part = np.take(x, reads, axis)
    mask = np.isin(np.arange(shape[axis]), reads)
    x = x * along(mask, axis, len(shape))

    def call(layer, array):
        tensor = keras.ops.cast(array, value.dtype)
        (output,) = trace.call(layer, node, {value: tensor})
        return np.moveaxis(to_numpy(output), last, -1)

    whole = call(node.op, x)
    small = trace.clone(node.op, **rule.size_config(node, writes))
    call(small, part)  # Builds it.
    rule.assign(node.op, small, reads, writes)
    if not comparing.same(call(small, part), whole[..., writes]):
        return "a layer for some of its channels computes something else"
    linear = call(rule.linear_part(node.op, x.shape), x)
    if not comparing.same(rule.shifted(node, linear), whole):
        return "it is not a kernel, a bias and an activation"
    return None


def _some(rng, channels):
    """Half of the channels, in any order."""
    return rng.permutation(channels)[: -(-channels // 2)]
