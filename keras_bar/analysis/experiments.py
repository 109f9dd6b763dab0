"""Runs of a layer, and of smaller copies, on random input."""

import dataclasses

import keras
import numpy as np
from keras import ops

from keras_bar.analysis import cloning
from keras_bar.analysis import comparing
from keras_bar.analysis import trace

# Standard deviations of the random inputs: a layer may treat small numbers
# another way than large ones.
SCALES = (1.0, 1e-2, 1e2)
# What replaces values that must not matter. No comparison with NaN holds, so
# that a threshold hides it; the numbers are finite in float16.
FILLS = (np.nan, 1e4, -1e4)


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


class Experiment:
    """Runs a layer, and smaller ones, on random input.

    Args:
        node: `Node` of the layer.
        axis: Integer, the channel axis of the input.
        shape: Shape of the input.
        output_axis: Integer, the channel axis of the output. Defaults to
            `axis`, and then the rank must stay the same.
    """

    def __init__(self, node, axis, shape, output_axis=None):
        self.node = node
        self.op = node.op
        self.axis = axis
        self.keeps_rank = output_axis is None
        self.output_axis = axis if output_axis is None else output_axis
        self.channels = shape[axis]
        self.rng = np.random.default_rng(0)
        x = self.rng.normal(size=shape).astype("float32")
        self.inputs = [np.float32(scale) * x for scale in SCALES]
        self.variables = list(getattr(self.op, "variables", ()))
        self.weights = [
            comparing.changed(x, self.rng)
            if keras.backend.is_float_dtype(x.dtype)
            else ops.convert_to_numpy(x)
            for x in self.variables
        ]
        self.outputs = [self._of(x) for x in self.inputs]

    def behaviour(self):
        """Finds out how the layer keeps channels apart.

        Returns:
            A `Behaviour`.

        Raises:
            NotChannelwise: If it does not.
        """
        x, y = self.inputs[0], self.outputs[0]
        if self.channels < 2:
            raise NotChannelwise("it has a single channel")
        if self.keeps_rank and y.ndim != x.ndim:
            raise NotChannelwise("its output has another rank")
        if y.shape[self.output_axis] != self.channels:
            raise NotChannelwise("its output has another number of channels")
        if not np.all(np.isfinite(y)):
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
            preserves_zero=not np.any(self._of(np.zeros_like(x))),
            preserves_constants=self._preserves_constants(),
        )

    def _check_apart(self, kept):
        """Raises `NotChannelwise` if channels depend on each other."""
        others = np.ones(self.channels, bool)
        others[kept] = False
        shape = [1] * self.inputs[0].ndim
        shape[self.axis] = self.channels
        if not self._ignores(
            others.reshape(shape), lambda y: np.take(y, kept, self.output_axis)
        ):
            raise NotChannelwise("its channels depend on each other")

    def _ignores(self, mask, part_of):
        """Whether a part of the output stays the same if input is replaced.

        Args:
            mask: Booleans that broadcast against the input: what is replaced.
            part_of: Function from the output to the part.
        """
        return all(
            comparing.same(
                part_of(self._of(np.where(mask, np.float32(fill), x))),
                part_of(y),
            )
            for x, y in zip(self.inputs, self.outputs, strict=True)
            for fill in FILLS
        )

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
            config = cloning.config_of(self.op)
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
            config = cloning.config_of(self.op)
            changes = {
                x: adapted(config[x], self.channels, kept) for x in entries
            }
        small = trace.clone(self.op, **changes)
        first = np.take(self.inputs[0], kept, self.axis)
        self._call(small, first, training=None)  # Builds it.
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
        for x, whole in zip(self.inputs, self.outputs, strict=True):
            if training:
                whole = self._run(self.op, self.weights, x, training)
            y = self._run(small, weights, np.take(x, kept, self.axis), training)
            if not comparing.same(y, np.take(whole, kept, self.output_axis)):
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
        """Whether no position depends on the first one, on the last one, or on
        a random half."""
        shape = self.inputs[0].shape
        if self.outputs[0].shape != shape or self.output_axis != self.axis:
            return False
        sizes = [d for i, d in enumerate(shape) if i not in (0, self.axis)]
        count = int(np.prod(sizes))
        half = self.rng.permutation(count)[: count // 2]
        for hidden in ([0], [-1], half):
            mask = np.zeros(count, bool)
            mask[hidden] = True
            mask = np.expand_dims(mask.reshape(1, *sizes), self.axis)
            others = ~np.broadcast_to(mask, shape)
            if not self._ignores(mask, lambda y, others=others: y[others]):
                return False
        return True

    def _preserves_constants(self):
        x = np.moveaxis(np.empty_like(self.inputs[0]), self.axis, -1)
        constants = self.rng.normal(size=self.channels)
        for scale in SCALES:
            x[:] = scale * constants
            y = self._of(np.moveaxis(x, -1, self.axis))
            y = np.moveaxis(y, self.output_axis, -1)
            first = y.reshape(-1, self.channels)[0]
            if not comparing.same(y, np.broadcast_to(first, y.shape)):
                return False
        return True

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
