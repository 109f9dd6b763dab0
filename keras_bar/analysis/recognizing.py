"""Layers that compute what others compute, which have rules: normalization by
the root mean square, which Keras lacked for long, and a layer that is applied
to every time step."""

import weakref

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import comparing
from keras_bar.analysis import replaying

# Root mean squares of the input on which a layer is compared, and one at which
# nothing but `epsilon` is left of the denominator.
_SCALES = (1e-3, 1.0, 1e2)
_TINY = 1e-12
# Size of dimensions that are unknown.
_SIZE = 4
# Layers that stand for others, as long as someone uses them.
_LAYERS: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


def recognized(layer, args, kwargs):
    """A Functional model that computes the same as a layer; None if none is
    known: a `keras.layers.RMSNormalization` with the very weight of the layer,
    or the layer inside of a `TimeDistributed`.

    Args:
        layer: Built `keras.Layer`.
        args, kwargs: Arguments of its call, with a `keras.KerasTensor` in the
            place of the tensor.
    """
    given = [x for x in tree.flatten((args, kwargs)) if x is not None]
    if type(layer) is keras.layers.TimeDistributed and len(given) == 1:
        return _of_time_steps(layer, *given)
    if len(given) != 1 or len(layer.variables) != 1:
        return None
    if keras_internals.layers_inside(layer):
        return None
    (x,), (weight,) = given, layer.variables
    if not isinstance(x, keras.KerasTensor) or len(weight.shape) != 1:
        return None
    for axis in reversed(range(1, len(x.shape))):
        same_size = x.shape[axis] == weight.shape[0]
        found = _along(layer, x, weight, axis) if same_size else None
        if found:
            with keras_internals.undisturbed(layer):
                inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
                return replaying.functional(
                    [inputs], [found(inputs)], layer.name
                )
    return None


def _of_time_steps(layer, x):
    """The layer inside of a `TimeDistributed`, which treats time steps as
    samples; None if a size is unknown."""
    if None in x.shape[1:]:
        return None
    with keras_internals.undisturbed(layer):
        inputs = keras.Input(batch_shape=x.shape, dtype=x.dtype)
        steps = layer.layer(ops.reshape(inputs, (-1, *x.shape[2:])))
        if not isinstance(steps, keras.KerasTensor):
            return None
        shape = (-1, x.shape[1], *steps.shape[1:])
        outputs = ops.reshape(steps, shape)
        return replaying.functional([inputs], [outputs], layer.name)


def _along(layer, x, weight, axis):
    """The normalization along an axis, or None."""
    rng = np.random.default_rng(0)
    array = rng.normal(size=[d or _SIZE for d in x.shape])
    array /= np.sqrt(np.mean(array**2, axis=axis, keepdims=True))
    changed = comparing.changed(weight, rng)
    shape = [-1 if i == axis else 1 for i in range(array.ndim)]
    factors = ops.convert_to_numpy(ops.cast(changed, "float32")).reshape(shape)

    def run(tested, scale):
        with keras.StatelessScope(state_mapping=[(weight, changed)]):
            tensor = ops.cast(ops.convert_to_tensor(array * scale), x.dtype)
            output = tested(tensor, training=False)
            return ops.convert_to_numpy(ops.cast(output, "float32"))

    try:
        ratios = run(layer, _TINY) / (array * _TINY * factors)
        epsilon = float(np.median(ratios)) ** -2 - _TINY**2
        if not np.allclose(ratios, np.median(ratios), rtol=1e-3):
            return None
        found = _of(layer, weight, axis, float(f"{epsilon:.4g}"))
        alike = (comparing.same(run(layer, s), run(found, s)) for s in _SCALES)
        return found if all(alike) else None
    except Exception:  # Whatever the user's code raises.
        return None


def _of(layer, weight, axis, epsilon):
    """The normalization with an existing weight, the same for all calls."""
    key = id(weight), axis, epsilon
    if key not in _LAYERS:
        made = keras.layers.RMSNormalization(
            axis, epsilon, name="normalization", dtype=layer.dtype_policy
        )
        made.axis, made.scale, made.built = [axis], weight, True
        made.trainable = layer.trainable
        return _LAYERS.setdefault(key, made)
    return _LAYERS[key]
