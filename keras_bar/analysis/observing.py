"""How a layer without a rule treats channels, found by running it.

The layer keeps channels apart if a smaller copy, for some of the channels,
computes the same as the whole layer does for these channels, on random input
and with changed weights. Compaction builds exactly such a copy. This holds for
affine layers, LayerScale, and custom activations, poolings and depthwise
convolutions of any package.
"""

import contextlib
import dataclasses
import json

import keras
import numpy as np
from keras import ops

from keras_bar import keras_internals
from keras_bar.analysis import comparing
from keras_bar.analysis import trace

# Earlier results, by the layer's class and configuration.
_REMEMBERED: dict = {}


class NotChannelwise(Exception):
    """The layer does not keep channels apart; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Behaviour:
    """How a layer keeps channels apart.

    Attributes:
        entries: Names of the entries of its configuration that hold the number
            of channels, or a number per channel.
        axes: Per variable, the axis of the channels; None where it has none.
        elementwise: Whether every value of the output depends on the value at
            the same position alone.
        preserves_zero: Whether a channel of zeros stays one.
        preserves_constants: Whether a constant channel becomes one.
    """

    entries: tuple
    axes: tuple
    elementwise: bool
    preserves_zero: bool
    preserves_constants: bool


def observe(node, axis):
    """Runs a layer to find out how it treats the channels of its input.

    Args:
        node: `Node` of the layer.
        axis: Integer, the channel axis of its input.

    Returns:
        A `Behaviour`.

    Raises:
        NotChannelwise: If its channels depend on each other, or it cannot be
            made smaller.
    """
    key = _key(node, axis)
    if key not in _REMEMBERED:
        try:
            found = _observe(node, axis)
        except NotChannelwise as error:
            found = str(error)
        if key is None:
            return _checked(found)
        _REMEMBERED[key] = found
    return _checked(_REMEMBERED[key])


def adapted(value, channels, kept):
    """A part of a configuration, for some of the channels.

    Args:
        value: The number of channels, a number for each of them, or anything
            else, which stays as it is.
        channels: Integer, the number of channels.
        kept: Integers, those that are kept.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return len(kept) if value == channels else value
    if isinstance(value, list | tuple) and channels > 1:
        if len(value) == channels:
            return type(value)(value[i] for i in kept)
        return type(value)(adapted(x, channels, kept) for x in value)
    return value


def part(array, axis, kept):
    """The part of a variable that belongs to some channels."""
    return array if axis is None else np.take(array, kept, axis=axis)


def _checked(found):
    if isinstance(found, str):
        raise NotChannelwise(found)
    return found


def _key(node, axis):
    """What a layer's behaviour depends on; None if that is not known."""
    static = [
        "a tensor" if isinstance(x, trace.Value) else x
        for x in keras.tree.flatten((node.args, node.kwargs))
    ]
    if isinstance(node.op, keras.layers.Layer):
        config = {**node.op.get_config(), "name": None}
    else:
        attributes = vars(node.op).items()
        config = {x: y for x, y in attributes if x[0] != "_" and x != "name"}
    shape, dtype = node.inputs[0].shape, node.inputs[0].dtype
    try:
        text = json.dumps([config, static, shape, dtype, axis], sort_keys=True)
    except (TypeError, ValueError):
        return None
    return type(node.op), text


def _observe(node, axis):
    failure = "it does not run"
    shape = node.inputs[0].shape
    sizes = comparing.SIZES if None in shape[1:] else (None,)
    is_layer = isinstance(node.op, keras.layers.Layer)
    undisturbed = (
        keras_internals.undisturbed if is_layer else contextlib.nullcontext
    )
    with undisturbed(node.op):
        for size in sizes:  # It may divide an unknown size.
            dims = (
                comparing.EXAMPLES,
                *(size if d is None else d for d in shape[1:]),
            )
            try:
                return _Experiment(node, axis, dims).behaviour()
            except NotChannelwise:
                raise
            except Exception as error:  # Whatever the user's code raises.
                failure = f"on random input: {comparing.first(error)}"
    raise NotChannelwise(failure)


class _Experiment:
    """Runs a layer, and smaller ones, on random input.

    Args:
        node: `Node` of the layer.
        axis: Integer, the channel axis.
        shape: Shape of the input.
    """

    def __init__(self, node, axis, shape):
        self.node = node
        self.op = node.op
        self.axis = axis
        self.channels = shape[axis]
        self.rng = np.random.default_rng(0)
        self.x = self.rng.normal(size=shape).astype("float32")
        self.variables = list(getattr(self.op, "variables", ()))
        self.weights = [
            comparing.changed(x, self.rng)
            if keras.backend.is_float_dtype(x.dtype)
            else ops.convert_to_numpy(x)
            for x in self.variables
        ]
        self.y = self._run(self.op, self.weights, self.x)

    def behaviour(self):
        if self.channels < 2:
            raise NotChannelwise("it has a single channel")
        if self.y.ndim != self.x.ndim:
            raise NotChannelwise("its output has another rank")
        if self.y.shape[self.axis] != self.channels:
            raise NotChannelwise("its output has another number of channels")
        if not np.all(np.isfinite(self.y)):
            raise NotChannelwise("its output is not finite on random input")
        order = self.rng.permutation(self.channels)
        half, single = order[: -(-self.channels // 2)], order[-1:]
        for kept in (half, single):
            self._check_apart(kept)
        entries, axes = self._smaller(half)
        if self.channels > 2:
            self._compare(entries, axes, single)
        if isinstance(self.op, keras.layers.Layer) and not self._draws_noise():
            self._compare(entries, axes, half, training=True)
        return Behaviour(
            entries,
            axes,
            elementwise=self._is_elementwise(),
            preserves_zero=not np.any(self._of(np.zeros_like(self.x))),
            preserves_constants=self._preserves_constants(),
        )

    def _check_apart(self, kept):
        """Raises `NotChannelwise` if channels depend on each other."""
        others = np.setdiff1d(np.arange(self.channels), kept)
        x = np.moveaxis(self.x.copy(), self.axis, -1)
        x[..., others] = np.nan
        y = self._of(np.moveaxis(x, -1, self.axis))
        if not comparing.same(self._take(y, kept), self._take(self.y, kept)):
            raise NotChannelwise("its channels depend on each other")

    def _smaller(self, kept):
        """Entries and axes that make a layer for some of the channels."""
        failures = []
        for entries in self._candidates(kept):
            try:
                return entries, self._compare(entries, None, kept)
            except NotChannelwise as error:
                failures.append(error)
            except Exception as error:  # Whatever the user's code raises.
                first = comparing.first(error.__cause__ or error)
                failures.append(
                    NotChannelwise(
                        f"it cannot be made for fewer channels: {first}"
                    )
                )
        raise failures[0]

    def _candidates(self, kept):
        """Yields tuples of the names of entries that may have to change."""
        yield ()
        if isinstance(self.op, keras.layers.Layer):
            config = self.op.get_config()
            names = tuple(
                name
                for name, value in config.items()
                if adapted(value, self.channels, kept) != value
            )
            yield from [names] if names else []
            yield from [(x,) for x in names] if len(names) > 1 else []

    def _compare(self, entries, axes, kept, training=None):
        """Compares the layer with one for the channels `kept`.

        Returns:
            Per variable, the axis of the channels.
        """
        changes = {}
        if entries:
            config = self.op.get_config()
            changes = {
                x: adapted(config[x], self.channels, kept) for x in entries
            }
        small = trace.clone(self.op, **changes)
        x = self._take(self.x, kept)
        self._call(small, x, training=None)  # Builds it.
        variables = list(getattr(small, "variables", ()))
        shapes = [
            (tuple(x.shape), tuple(y.shape))
            for x, y in zip(self.variables, variables, strict=True)
        ]
        found = tuple(_axis(*pair, self.channels, len(kept)) for pair in shapes)
        if axes is not None and found != axes:
            raise NotChannelwise(
                "its variables depend on the number of channels"
            )
        weights = [
            part(ops.convert_to_numpy(x), axis, kept)
            for x, axis in zip(self.weights, found, strict=True)
        ]
        whole = self.y
        if training:
            whole = self._run(self.op, self.weights, self.x, training)
        y = self._run(small, weights, x, training)
        if not comparing.same(y, self._take(whole, kept)):
            raise NotChannelwise(
                "a layer for some of its channels computes something else"
                + (", in training" if training else "")
            )
        return found

    def _draws_noise(self):
        """Whether training is random: a seed is among its variables."""
        return any(
            not keras.backend.is_float_dtype(x.dtype) for x in self.variables
        )

    def _is_elementwise(self):
        if self.y.shape != self.x.shape:
            return False
        x = np.moveaxis(self.x.copy(), self.axis, 1)
        x = x.reshape(*x.shape[:2], -1)
        x[:, :, 0] = np.nan
        moved = np.moveaxis(self.x, self.axis, 1).shape
        y = self._of(np.moveaxis(x.reshape(moved), 1, self.axis))
        y, whole = (
            np.moveaxis(z, self.axis, 1).reshape(*x.shape[:2], -1)[:, :, 1:]
            for z in (y, self.y)
        )
        return comparing.same(y, whole)

    def _preserves_constants(self):
        x = np.moveaxis(np.empty_like(self.x), self.axis, -1)
        x[:] = self.rng.normal(size=self.channels)
        y = np.moveaxis(self._of(np.moveaxis(x, -1, self.axis)), self.axis, -1)
        first = y.reshape(-1, self.channels)[0]
        return comparing.same(y, np.broadcast_to(first, y.shape))

    def _take(self, array, kept):
        return np.take(array, kept, axis=self.axis)

    def _of(self, x):
        """The output of the layer with changed weights."""
        return self._run(self.op, self.weights, x)

    def _run(self, op, weights, x, training=None):
        variables = getattr(op, "variables", ())
        mapping = [
            (variable, ops.convert_to_tensor(value, variable.dtype))
            for variable, value in zip(variables, weights, strict=True)
        ]
        with keras.StatelessScope(state_mapping=mapping):
            outputs = self._call(op, x, training)
        (y,) = keras.tree.flatten(outputs)
        return ops.convert_to_numpy(ops.cast(y, "float32"))

    def _call(self, op, x, training):
        value = self.node.inputs[0]
        tensor = ops.convert_to_tensor(x, value.dtype)
        args, kwargs = keras.tree.map_structure(
            lambda leaf: tensor if leaf is value else leaf,
            (self.node.args, self.node.kwargs),
        )
        if training is not None:
            kwargs = {**kwargs, "training": training}
        return op(*args, **kwargs)


def _axis(whole, small, channels, kept):
    """The axis along which a variable has an entry for every channel."""
    if len(whole) != len(small):
        raise NotChannelwise("the rank of a variable depends on the channels")
    pairs = enumerate(zip(whole, small, strict=True))
    different = [i for i, (a, b) in pairs if a != b]
    if not different:
        return None
    axis = different[0]
    if len(different) > 1 or (whole[axis], small[axis]) != (channels, kept):
        raise NotChannelwise(
            "a variable does not have one entry for every channel"
        )
    return axis
