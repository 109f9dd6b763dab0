"""On which devices a recipe trains."""

import contextlib

import keras

from recipes.experiment import hosts

_MIRRORED: list = []


def start(strategy):
    """Joins the other hosts, if there are any. Must be called before
    TensorFlow is used for anything else."""
    if _known(strategy) == "multiworker":
        hosts.start()


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


def strategy_scope(strategy):
    """The context of a strategy: `"none"`: one device. `"mirrored"`: all local
    accelerators, or the CPUs if there are none. `"auto"`: the latter if there
    are several accelerators, otherwise the former. `"multiworker"`: the
    accelerators, or CPUs, of all hosts that have been joined."""
    if hosts.several():
        return hosts.strategy().scope()
    if count(strategy) == 1 and strategy != "mirrored":
        return contextlib.nullcontext()
    import tensorflow as tf

    # One per process: collectives of a second one would not match.
    if not _MIRRORED:
        names = _find("GPU") or _find("CPU")
        _MIRRORED.append(tf.distribute.MirroredStrategy(names))
    return _MIRRORED[0].scope()


def count(strategy):
    """How many devices share a batch."""
    if _known(strategy) == "none":
        return 1
    if hosts.several():
        return hosts.strategy().num_replicas_in_sync
    gpus = len(_find("GPU"))
    return gpus or (len(_find("CPU")) if strategy == "mirrored" else 1)


def _known(strategy):
    """The strategy, which is `"none"` where a backend knows no other."""
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


def replicated():
    """Whether several devices share the work now. Each has statistics of batch
    normalization of its own, of which the first one's are saved."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync > 1


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
