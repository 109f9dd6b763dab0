"""On which devices a recipe trains."""

import contextlib

import keras

STRATEGIES = ("auto", "none", "mirrored")


def scope(strategy):
    """A context in which models are made, compiled and trained.

    Every batch is split between the devices.

    Args:
        strategy: `"none"`: one device. `"mirrored"`: all local accelerators,
            or the CPUs if there are none. `"auto"`: the latter if there are
            several accelerators, otherwise the former.

    Returns:
        A context manager.

    Raises:
        ValueError: If the backend knows no such strategy.
    """
    if strategy == "none":
        return contextlib.nullcontext()
    backend = keras.backend.backend()
    if backend == "tensorflow":
        return _tensorflow(strategy)
    if backend == "jax":
        return _jax(strategy)
    if strategy == "auto":
        return contextlib.nullcontext()
    raise ValueError(
        "This backend trains on one device. Expected --strategy none, or the "
        f"backend tensorflow or jax. Received: --strategy {strategy} with the "
        f"backend {backend}"
    )


@contextlib.contextmanager
def precision(kind):
    """A context in which new models compute in `"bfloat16"` or `"float16"`, or
    as before if the kind is None."""
    before = keras.config.dtype_policy()
    if kind is not None:
        keras.config.set_dtype_policy(f"mixed_{kind}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def check_batch(batch, strategy):
    """Raises a ValueError if the devices cannot share a batch."""
    count = _count(strategy)
    if batch % count:
        raise ValueError(
            f"A batch cannot be shared by {count} devices. Expected a multiple "
            f"of {count}. Received: --batch-size {batch}"
        )


def _tensorflow(strategy):
    import tensorflow as tf

    if strategy == "auto" and len(tf.config.list_logical_devices("GPU")) < 2:
        return contextlib.nullcontext()
    # One per process: collectives of a second one would not match.
    if not _MIRRORED:
        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        names = [x.name for x in tf.config.list_logical_devices(kind)]
        _MIRRORED.append(tf.distribute.MirroredStrategy(names))
    return _MIRRORED[0].scope()


_MIRRORED: list = []


def _jax(strategy):
    if strategy == "auto" and len(keras.distribution.list_devices("gpu")) < 2:
        return contextlib.nullcontext()
    return keras.distribution.DataParallel().scope()


def _count(strategy):
    """How many devices share a batch."""
    if strategy == "none" or keras.backend.backend() == "torch":
        return 1
    kinds = [keras.distribution.list_devices(x) for x in ("gpu", "cpu")]
    if strategy == "auto":
        return max(len(kinds[0]), 1)
    return len(kinds[0]) or len(kinds[1])
