"""On which devices a recipe trains."""

import contextlib

import keras

from recipes.experiment import hosts

STRATEGIES = ("auto", "none", "mirrored", "multiworker")


def start(strategy):
    """Joins the other hosts, if there are any. Must be called before
    TensorFlow is used for anything else.

    Args:
        strategy: As `scope` takes it.

    Raises:
        ValueError: If the backend does not know the strategy, or it is not
            told of the hosts.
    """
    if _check(strategy) == "multiworker":
        hosts.start()


def scope(strategy):
    """A context in which models are made, compiled and trained.

    Every batch is split between the devices.

    Args:
        strategy: `"none"`: one device. `"mirrored"`: all local accelerators,
            or the CPUs if there are none. `"auto"`: the latter if there are
            several accelerators, otherwise the former. `"multiworker"`: the
            accelerators, or CPUs, of all hosts that have been joined.

    Returns:
        A context manager.
    """
    if hosts.several():
        return hosts.scope()
    if count(strategy) == 1 and strategy != "mirrored":
        return contextlib.nullcontext()
    import tensorflow as tf

    # One per process: collectives of a second one would not match.
    if not _MIRRORED:
        names = _find("GPU") or _find("CPU")
        _MIRRORED.append(tf.distribute.MirroredStrategy(names))
    return _MIRRORED[0].scope()


_MIRRORED: list = []


def count(strategy):
    """How many devices share a batch."""
    if _check(strategy) == "none":
        return 1
    if hosts.several():
        return hosts.count()
    gpus = len(_find("GPU"))
    return gpus or (len(_find("CPU")) if strategy == "mirrored" else 1)


def _check(strategy):
    """The strategy, which is `"none"` where a backend knows no other.

    Raises:
        ValueError: If another one was asked for.
    """
    if keras.backend.backend() == "tensorflow":
        return strategy
    if strategy not in ("auto", "none"):
        raise ValueError(
            "Recipes train on several devices with TensorFlow only. "
            "Expected --strategy auto or none, or the backend tensorflow. "
            f"Received: --strategy {strategy}, and the backend "
            f"{keras.backend.backend()}"
        )
    return "none"


def _find(kind):
    import tensorflow as tf

    return [x.name for x in tf.config.list_logical_devices(kind)]


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


def replicated():
    """Whether several devices share the work now. Each has statistics of batch
    normalization of its own, of which the first one's are saved."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def check(strategy, batch, jit, precision):
    """Raises a ValueError if the devices cannot train like that.

    Args:
        strategy: As `scope` takes it.
        batch: Integer, pictures per batch.
        jit: What `compile` takes as `jit_compile`.
        precision: As `precision` takes it.
    """
    devices = count(strategy)
    if batch % devices:
        raise ValueError(
            f"A batch cannot be shared by {devices} devices. Expected a "
            f"multiple of {devices}. Received: --batch-size {batch}"
        )
    if devices > 1 and jit:
        raise ValueError(
            "TensorFlow cannot compile for several devices with XLA. Expected "
            f"--jit off. Received: --jit {'auto' if jit == 'auto' else 'on'}, "
            f"and {devices} devices"
        )
    if devices > 1 and precision == "float16":
        # Keras looks for overflows on every device by itself, and there is
        # none that the others would not have to know of.
        raise ValueError(
            "Several devices cannot share the loss scale that float16 needs. "
            "Expected --mixed-precision bfloat16. "
            f"Received: --mixed-precision float16, and {devices} devices"
        )
