"""The devices of a host that share every batch, on TensorFlow and JAX."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import keras

__all__ = ["on_one_device", "replicas"]


def replicas(strategy: Any = None) -> int:
    """Returns the number of devices that share a batch.

    Args:
        strategy: What `multi_host.find_strategy` returns. Defaults to the
            `keras.distribution` in whose scope this is.

    Example:

    >>> from keras_bar import devices
    >>> devices.replicas()
    1
    """
    strategy = strategy or keras.distribution.distribution()
    if isinstance(strategy, keras.distribution.DataParallel):
        return strategy.num_model_replicas
    return strategy.num_replicas_in_sync if strategy else 1


@contextlib.contextmanager
def on_one_device(model: keras.Model) -> Iterator[keras.Model]:
    """Context with a model that can predict any number of images.

    On JAX a model whose variables are shared by devices predicts whole batches
    only, and none on several hosts. A copy on this host's first device does.

    Args:
        model: The model.

    Yields:
        The model, or in the scope of a `keras.distribution` its copy.

    Example:

    >>> from keras_bar import devices
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> with devices.on_one_device(model) as alone:
    ...     alone.predict(np.ones((3, 2)), verbose=0).shape
    (3, 1)
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        yield model
        return
    values = [keras.ops.convert_to_numpy(x) for x in model.weights]
    keras.distribution.set_distribution(None)
    try:
        copy = type(model).from_config(model.get_config())
        copy.set_weights(values)
        yield copy
    finally:
        keras.distribution.set_distribution(distribution)


def local(kind):
    """List of the names of this host's devices of a kind: `"CPU"`, or `"GPU"`,
    which is any accelerator on JAX."""
    if keras.backend.backend() == "jax":
        import jax

        return [
            f"{x.platform}:{x.id}"
            for x in jax.local_devices()
            if (x.platform == "cpu") == (kind == "CPU")
        ]
    import tensorflow as tf

    return [x.name for x in tf.config.list_logical_devices(kind)]


@functools.cache
def mirrored(names):
    """The strategy of a tuple of names of devices: one per process, because
    collectives of a second one would not match."""
    if keras.backend.backend() == "jax":
        return keras.distribution.DataParallel(devices=list(names))
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)
