"""The samples that a network is refitted to."""

import itertools

import keras
import numpy as np

# More samples change little.
SAMPLES = 512


def take(data, graph):
    """Some inputs of a model.

    Args:
        data: Array, or a structure of arrays like the inputs of the model, or a
            dict by their names; or a tuple that begins with such, `(x, y)`; or
            batches of these: a `keras.utils.PyDataset`, `tf.data.Dataset` or
            another iterable.
        graph: `Graph` of the model.

    Returns:
        List of arrays, one per input, with at most `SAMPLES` samples: drawn
        from arrays, or the first ones of batches.

    Raises:
        ValueError: If these are no inputs of the model, there are none, or
            they are not finite.
    """
    arrays = _as_inputs(data[0] if _is_pair(data) else data, graph)
    if arrays is None:
        arrays = _first(data, graph)
    elif len(arrays[0]) > SAMPLES:
        rng = np.random.default_rng(0)
        chosen = np.sort(rng.choice(len(arrays[0]), SAMPLES, replace=False))
        arrays = [x[chosen] for x in arrays]
    for x in arrays:
        if x.dtype.kind == "f" and not np.all(np.isfinite(x)):
            raise ValueError(
                "The samples to refit the network to are not finite. Expected "
                "numbers. Received: an array with NaN or infinite values"
            )
    return arrays


def _first(data, graph):
    """The first samples of batches."""
    if isinstance(data, keras.utils.PyDataset):
        batches = (data[i] for i in range(data.num_batches or 0))
    elif hasattr(data, "__iter__") and not hasattr(data, "shape"):
        batches = iter(data)
    else:
        raise _misfit(graph, data, "")
    parts, received = [], 0
    for i, batch in enumerate(itertools.islice(batches, SAMPLES)):
        given = batch[0] if _is_pair(batch, list) else batch
        arrays = _as_inputs(given, graph)
        if arrays is None:
            raise _misfit(graph, given, f", in batch {i}")
        parts.append(arrays)
        received += len(arrays[0])
        if received >= SAMPLES:
            break
    if not parts:
        raise _misfit(graph, data, "")
    return [np.concatenate(x)[:SAMPLES] for x in zip(*parts, strict=True)]


def _is_pair(data, *others):
    """Whether data are inputs and more, as `fit` takes them in a tuple."""
    return isinstance(data, (tuple, *others)) and bool(data)


def _as_inputs(data, graph):
    """List of arrays, or None if these are no inputs of the model."""
    leaves = _leaves(data, graph)
    if len(leaves) != len(graph.inputs):
        return None
    if not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in leaves):
        return None
    arrays = [keras.ops.convert_to_numpy(x) for x in leaves]
    fits = all(map(_fits, arrays, graph.inputs))
    return arrays if fits and len({len(x) for x in arrays}) == 1 else None


def _leaves(data, graph):
    """The arrays of data in the order of a model's inputs: as Keras does, a
    dict is read by the names of the inputs if these are no dict."""
    if isinstance(data, dict) and not isinstance(graph.input_struct, dict):
        names = [x.name for x in graph.input_tensors]
        return [data[x] for x in names] if set(names) == set(data) else []
    return keras.tree.flatten(data)


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


def _misfit(graph, data, where):
    leaves = keras.tree.flatten(data)
    shapes = [tuple(getattr(x, "shape", ())) for x in leaves[:3]]
    expected = [tuple(x.shape) for x in graph.inputs]
    return ValueError(
        "The samples to refit the network to do not fit its inputs. Expected "
        f"arrays of shapes {expected}, or batches of such, with at least one "
        f"sample. Received: {type(data).__name__} of shapes {shapes}{where}"
    )
