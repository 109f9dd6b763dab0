"""Registration of rules for custom layers."""

import functools
import inspect
from collections.abc import Callable

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import comparing
from keras_bar.analysis import registry
from keras_bar.analysis import trace
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import Dense
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

    An elementwise layer, and a layer with a kernel, is checked: a smaller copy
    must compute the same on random input. If the check fails, the layer keeps
    all of its channels, and `explain` gives the reason.

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
    if registry.is_known_class(layer):
        raise ValueError(
            "Layers of Keras and of keras_bar have their rules already. "
            f"Expected a custom class. Received: layer={layer!r}"
        )
    registry.add_class(layer, _maker(like))


def _maker(like):
    """A function that returns the rule that `like` stands for."""
    if isinstance(like, Rule):
        return lambda: like
    if inspect.isclass(like) and issubclass(like, Rule):
        return like
    if isinstance(like, str):
        rule = _WORDS.get(like) or registry.kind_named(like)
        if rule is not None:
            return rule
    raise ValueError(
        "Unknown way to treat channels. Expected "
        f"{', '.join(map(repr, _WORDS))}, the name of a layer or an operation "
        "of Keras that keras_bar knows, such as 'Conv2D', or a "
        f"`keras_bar.analysis.rules.Rule`. Received: like={like!r}"
    )


def contradiction(rule, node):
    """Why a registered rule does not hold for a layer with a kernel, in a
    sentence; None if nothing speaks against it."""
    if not rule.reads_linearly:
        return None
    try:
        with keras_internals.undisturbed(node.op):
            return _test(rule, node)
    except Exception as error:  # Whatever the user's code raises.
        first = comparing.first(error.__cause__ or error)
        return f"it cannot be made for fewer channels: {first}"


def _test(rule, node):
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
    small = trace.clone(node.op, **rule.size_config(node.op, writes))
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
