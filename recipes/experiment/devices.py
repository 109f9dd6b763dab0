"""On which devices a recipe trains."""

import contextlib
import functools

import keras

from keras_bar import multi_host


def find_strategy(name):
    """The `tf.distribute` strategy of a `--strategy`, or None for one device.
    Joins the other hosts first, if there are any, so nothing else must have
    used TensorFlow before."""
    if keras.backend.backend() != "tensorflow":
        if name not in ("auto", "none"):
            raise ValueError(
                "Recipes train on several devices with TensorFlow only. "
                "Expected --strategy auto or none, or the backend tensorflow. "
                f"Received: --strategy {name}, and the backend "
                f"{keras.backend.backend()}"
            )
        return None
    if name == "multiworker":
        return multi_host.join().strategy
    devices = [] if name == "none" else _find("GPU")
    if name == "mirrored":
        devices = devices or _find("CPU")
    elif len(devices) < 2:
        return None
    return _mirrored(tuple(devices))


def _find(kind):
    import tensorflow as tf

    return [x.name for x in tf.config.list_logical_devices(kind)]


@functools.cache
def _mirrored(devices):
    """One per process: collectives of a second one would not match."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def count(name):
    """How many devices share a batch."""
    strategy = find_strategy(name)
    return strategy.num_replicas_in_sync if strategy else 1


def strategy_scope(name):
    """The context of the strategy of a name."""
    strategy = find_strategy(name)
    return strategy.scope() if strategy else contextlib.nullcontext()


@contextlib.contextmanager
def scope(settings):
    """A context in which models are made, compiled and trained as the settings
    ask for. Every batch is split between the devices."""
    before = keras.config.dtype_policy()
    if settings.mixed_precision is not None:
        keras.config.set_dtype_policy(f"mixed_{settings.mixed_precision}")
    try:
        with strategy_scope(settings.strategy):
            yield
    finally:
        keras.config.set_dtype_policy(before)


def check(settings):
    """Raises a ValueError if the devices cannot train like that. Completes
    `settings.jit`."""
    if settings.jit is None:
        tensorflow = keras.backend.backend() == "tensorflow"
        settings.jit = "off" if tensorflow else "auto"
    batch, devices = settings.batch_size, count(settings.strategy)
    if batch % devices:
        raise ValueError(
            f"A batch cannot be shared by {devices} devices. Expected a "
            f"multiple of {devices}. Received: --batch-size {batch}"
        )
    if devices > 1 and settings.jit != "off":
        raise ValueError(
            "TensorFlow cannot compile for several devices with XLA. Expected "
            f"--jit off. Received: --jit {settings.jit}, and {devices} devices"
        )
    if devices > 1 and settings.mixed_precision == "float16":
        # Overflow must be detected on all devices together.
        raise ValueError(
            "Several devices cannot share the loss scale that float16 needs. "
            "Expected --mixed-precision bfloat16. "
            f"Received: --mixed-precision float16, and {devices} devices"
        )
