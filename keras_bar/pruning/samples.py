"""The samples that a network is refitted to."""

import itertools

import keras
import numpy as np

# As many samples are taken; more change little.
SAMPLES = 512


def take(data, inputs):
    """Some inputs of a model.

    Args:
        data: Array, or a structure of arrays like the inputs of the model; or
            batches as `fit` takes them, `x` or a tuple that begins with `x`: a
            `keras.utils.PyDataset`, `tf.data.Dataset` or another iterable.
        inputs: List of `Value`, the inputs of the model.

    Returns:
        List of arrays, one per input, with at most `SAMPLES` samples: drawn
        from arrays, and the first ones of batches.

    Raises:
        ValueError: If these are no inputs of the model, or none.
    """
    arrays = _as_inputs(data, inputs)
    if arrays is None:
        return _first(data, inputs)
    count = len(arrays[0])
    if count > SAMPLES:
        chosen = np.random.default_rng(0).choice(count, SAMPLES, replace=False)
        arrays = [x[np.sort(chosen)] for x in arrays]
    return arrays


def _first(data, inputs):
    """The first samples of batches."""
    if isinstance(data, keras.utils.PyDataset):
        batches = (data[i] for i in range(data.num_batches or 0))
    else:
        batches = iter(data) if hasattr(data, "__iter__") else iter(())
    parts, received = [], 0
    for batch in itertools.islice(batches, SAMPLES):
        given = batch[0] if isinstance(batch, tuple | list) else batch
        arrays = _as_inputs(given, inputs)
        if arrays is None:
            raise _misfit(inputs, given)
        parts.append(arrays)
        received += len(arrays[0])
        if received >= SAMPLES:
            break
    if not parts:
        raise _misfit(inputs, data)
    return [np.concatenate(x)[:SAMPLES] for x in zip(*parts, strict=True)]


def _as_inputs(data, inputs):
    """List of arrays, or None if these are no inputs of the model."""
    leaves = keras.tree.flatten(data)
    if len(leaves) != len(inputs):
        return None
    if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves):
        return None
    arrays = [keras.ops.convert_to_numpy(x) for x in leaves]
    fits = all(map(_fits, arrays, inputs))
    return arrays if fits and len({len(x) for x in arrays}) == 1 else None


def _fits(array, value):
    """Whether an array holds samples of an input."""
    return (
        array.ndim == len(value.shape)
        and len(array) > 0
        and all(
            size in (None, given)
            for size, given in zip(
                value.shape[1:], array.shape[1:], strict=True
            )
        )
    )


def _misfit(inputs, data):
    leaves = keras.tree.flatten(data)
    shapes = [tuple(getattr(x, "shape", ())) for x in leaves[:3]]
    return ValueError(
        "The samples to refit the network to do not fit its inputs. Expected "
        f"arrays of shapes {[tuple(x.shape) for x in inputs]}, or batches of "
        "such, with at least one sample. "
        f"Received: {type(data).__name__} of shapes {shapes}"
    )
