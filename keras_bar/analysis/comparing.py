"""Comparisons of layers by what they compute, with other weights."""

import contextlib

import keras
import numpy as np
from keras import ops

# Examples on which a graph is compared with its layer; and the sizes that are
# tried for dimensions that are unknown, since layers divide their inputs.
EXAMPLES = 2
SIZES = (16, 32, 64)
# Largest difference, relative to the largest output.
TOLERANCE = 1e-4
# Relative change of the weights.
CHANGE = 0.1
# Weights that are not trained and have 2 or 3 different values are masks, which
# layers compare with these values.
MASK_VALUES = 3


def changed(variable, rng):
    """Another value of a float variable. A variance stays positive, and a mask
    stays as it is."""
    value = ops.convert_to_numpy(ops.cast(variable, "float32"))
    values = len(np.unique(value))
    if not variable.trainable and 1 < values <= MASK_VALUES < value.size:
        return variable.value
    noise = CHANGE * rng.uniform(0.5, 1.0, value.shape)
    return ops.cast(value * (1 + noise) + noise, variable.dtype)


def same(a, b):
    """Whether two outputs are the same, but for rounding."""
    a, b = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in (a, b))
    finite = np.isfinite(a)
    scale = max(float(np.max(np.abs(a), initial=0.0, where=finite)), 1e-6)
    return a.shape == b.shape and np.allclose(
        a, b, rtol=0, atol=TOLERANCE * scale, equal_nan=True
    )


def random(rng, shape, dtype, entries=2):
    """A random array of a type; integers are indices of a table with this
    number of entries."""
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        return rng.integers(0, entries, shape)
    return rng.normal(size=shape).astype("float32")


def first(error):
    """First informative line of a Keras error."""
    text = str(error).replace("\x1b[1m", "").replace("\x1b[0m", "")
    lines = [x.strip() for x in text.splitlines() if x.strip()]
    told = [x for x in lines if not x.startswith("Exception encountered")]
    line = (told or lines or [""])[0]
    return f"{type(error).__name__}, {line[:200]}"


@contextlib.contextmanager
def same_noise():
    """A context with the same noise each time, that of PyTorch's own generator
    too, from which layers without a seed draw."""
    if keras.backend.backend() != "torch":
        yield
        return
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
