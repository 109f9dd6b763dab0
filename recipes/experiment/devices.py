"""On which devices a recipe trains."""

import contextlib

import keras

from keras_bar import devices as shared
from keras_bar import multi_host


@contextlib.contextmanager
def scope(settings):
    """A context in which models are made, compiled and trained as the settings
    ask for. Every batch is split between the devices."""
    before = keras.config.dtype_policy()
    if settings.mixed_precision is not None:
        keras.config.set_dtype_policy(f"mixed_{settings.mixed_precision}")
    strategy = multi_host.find_strategy(settings.strategy)
    try:
        with strategy.scope() if strategy else contextlib.nullcontext():
            yield
    finally:
        keras.config.set_dtype_policy(before)


def check(settings):
    """Raises a ValueError if the devices cannot train like that. Completes
    `settings.jit`."""
    tensorflow = keras.backend.backend() == "tensorflow"
    if settings.jit is None:
        settings.jit = "off" if tensorflow else "auto"
    batch = settings.batch_size
    strategy = multi_host.find_strategy(settings.strategy)
    devices = shared.replicas(strategy)
    if batch % devices:
        raise ValueError(
            f"A batch cannot be shared by {devices} devices. Expected a "
            f"multiple of {devices}. Received: --batch-size {batch}"
        )
    if not tensorflow or devices == 1:
        return
    if settings.jit != "off":
        raise ValueError(
            "TensorFlow cannot compile for several devices with XLA. Expected "
            f"--jit off. Received: --jit {settings.jit}, and {devices} devices"
        )
    if settings.mixed_precision == "float16":
        # Overflow must be detected on all devices together.
        raise ValueError(
            "Several devices cannot share the loss scale that float16 needs. "
            "Expected --mixed-precision bfloat16. "
            f"Received: --mixed-precision float16, and {devices} devices"
        )
