"""Rules for layers of the user's own."""

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
    "elementwise": functools.partial(Unknown, taught=True),
    "pointwise": Dense,
}


def register_rule(layer: type, like: str | type[Rule] | Rule) -> None:
    """Teaches keras_bar how a layer of one's own treats channels.

    It is seldom necessary: a layer that keras_bar does not know is unrolled
    into what it calls, or run on random input to see whether it keeps channels
    apart. `keras_bar.explain` names the layers for which neither works.

    What is registered is tested where it can be: an elementwise layer, or one
    with a kernel, is made smaller and compared with itself on random input. If
    that fails, it needs all of its channels, and `explain` says why.

    Args:
        layer: Class of layers. Its subclasses are kinds of their own.
        like: How it treats channels.
            `"elementwise"`: every number of the output depends on the number
            at the same place in the input, and on weights that are scalar or
            have an entry for each channel.
            `"pointwise"`: it mixes the channels at each position as `Dense`
            does, by weights `kernel` `(inputs, units)` and `bias` `(units,)`,
            and has the arguments `units`, `activation` and `use_bias`, and
            attributes of these names.
            The name of a layer or an operation of Keras, such as `"Conv2D"` or
            `"Add"`: it treats channels as that does, and has its attributes,
            arguments and weights, as a subclass of it has.
            Or a `keras_bar.analysis.rules.Rule`, for everything else.

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
            "Only a kind of layers has a rule. Expected a class of "
            "`keras.Layer`, such as MyLayer, and not a layer of it. "
            f"Received: layer={layer!r}"
        )
    if registry.is_known_class(layer):
        raise ValueError(
            "Layers of Keras and of keras_bar have their rules already. "
            f"Expected a class of one's own. Received: layer={layer!r}"
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
