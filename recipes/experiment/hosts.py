"""Several hosts: TensorFlow's `MultiWorkerMirroredStrategy` and Keras's `fit`.

Every host runs the same command, with `TF_CONFIG` in its environment, which
names all hosts and tells which of them this is. All of them train; the first
one, the chief, also writes to the output folder, from which all of them read.

With several hosts Keras 3's `fit` and `evaluate` fail in two places, which are
mended here: see `_mend_trainer`.
"""

import inspect
import json
import os
import signal
import time

import keras

from keras_bar.files import read_json
from recipes.experiment import files

# Seconds until a file that one host has written is seen by the others. Network
# file systems may take half a minute.
PATIENCE = 90.0
EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

_STRATEGY: list = []


def start():
    """Joins the other hosts, and waits for them. Must be called before
    TensorFlow is used for anything else.

    Raises:
        ValueError: If `TF_CONFIG` is wrong, or this Keras cannot be mended.
        OSError: If the others cannot be joined.
    """
    if _STRATEGY:
        return
    workers, index = read_config()
    _mend_trainer()
    import tensorflow as tf

    print(
        f"host {index} of {len(workers)}, waiting for the others: "
        f"{', '.join(workers)}",
        flush=True,
    )
    try:
        _STRATEGY.append(tf.distribute.MultiWorkerMirroredStrategy())
    except tf.errors.OpError as error:
        raise OSError(
            "The hosts cannot be joined. Expected a free port, with nothing "
            f"that is left of an earlier run. Received: {workers[index]}, "
            f"where TensorFlow says: {error.message}"
        ) from error
    # TensorFlow waits for a good moment to end, and knows of none here. The
    # states are safe at any moment.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def read_config():
    """What `TF_CONFIG` says.

    Returns:
        List of the hosts' addresses, and the integer index of this one.

    Raises:
        ValueError: If it is missing or says something else.
    """
    text = os.environ.get("TF_CONFIG", "")
    try:
        config = json.loads(text)
        cluster, task = config["cluster"], config["task"]
        workers, index = cluster["worker"], int(task["index"])
        right = task["type"] == "worker" and set(cluster) == {"worker"}
        right = right and 0 <= index < len(workers)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise ValueError(
            "The hosts are unknown. Expected the environment variable "
            f"TF_CONFIG on every host, such as {EXAMPLE}, with an index of its "
            f"own. Received: TF_CONFIG={text!r}"
        )
    return workers, index


def several():
    """Whether other hosts train with this one."""
    return bool(_STRATEGY)


def scope():
    """The context in which models are made, compiled and trained."""
    return _STRATEGY[0].scope()


def count():
    """How many devices share a batch, on all hosts."""
    return _STRATEGY[0].num_replicas_in_sync


def index():
    """Which of the hosts this is."""
    return read_config()[1] if several() else 0


def is_chief():
    """Whether this host writes to the output folder."""
    return index() == 0


def wait():
    """Waits until all hosts have come here."""
    if several():
        import tensorflow as tf

        _STRATEGY[0].reduce("SUM", tf.ones(()), axis=None)


def chiefs(value):
    """The chief's value of an integer or a boolean, on every host.

    What depends on the file system must not be decided by each host by itself:
    they may see a file at different times.
    """
    if not several():
        return value
    import tensorflow as tf

    value = tf.constant(int(value) if is_chief() else 0, tf.int64)
    return int(_STRATEGY[0].reduce("SUM", value, axis=None))


def see(path):
    """Waits until all hosts have come here and see a file of the chief's.

    Args:
        path: `pathlib.Path` of the file.

    Raises:
        OSError: If the file does not appear.
    """
    wait()
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until:
            raise OSError(
                "What one host writes is not seen by another. Expected an "
                "--output on a file system that all hosts share. "
                f"Received: {path.parent}"
            )
        time.sleep(0.1)


def agree(path, value):
    """What a JSON file holds; where there is none it is written first, with
    the chief's value."""
    if is_chief() and not path.exists():
        files.write(path, json.dumps(value))
    see(path)
    return read_json(path)


def chief_first(make):
    """What a function returns, which the chief calls before the others do, so
    that they find what it has written."""
    if is_chief():
        made = make()
        wait()
        return made
    wait()
    return make()


def lost():
    """Types of the errors that tell that another host is gone, or a device of
    this one."""
    if not several():
        return ()
    import tensorflow as tf

    errors = tf.errors
    return errors.UnavailableError, errors.AbortedError, errors.InternalError


def _mend_trainer():
    """Makes Keras's trainer work with several hosts (Keras issue 20585).

    It builds a model on the mean over the replicas of a batch, which does not
    exist for values of several hosts: any replica's part will do, because only
    its shape is used. And it averages the logs along axis 0, which scalars do
    not have. Other strategies go Keras's own way.
    """
    from keras.src.backend.tensorflow import trainer

    build = getattr(trainer.TensorFlowTrainer, "_maybe_symbolic_build", None)
    reduce = getattr(trainer, "reduce_per_replica", None)
    expected = (
        (build, ["self", "iterator", "data_batch"]),
        (reduce, ["values", "strategy", "reduction"]),
    )
    for function, names in expected:
        found = function and list(inspect.signature(function).parameters)
        if found != names:
            raise ValueError(
                "This Keras is not known to train on several hosts. Expected "
                "a trainer like that of Keras 3.15, or another --strategy. "
                f"Received: Keras {keras.__version__}"
            )

    def build_of_one_replica(self, iterator=None, data_batch=None):
        if iterator is not None and self.distribute_strategy is _STRATEGY[0]:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(_first, next(batches))
                break
            iterator = None
        return build(self, iterator, data_batch)

    def reduce_of_hosts(values, strategy, reduction):
        if strategy is not _STRATEGY[0] or reduction not in ("auto", "mean"):
            return reduce(values, strategy, reduction)
        return keras.tree.map_structure(
            lambda x: strategy.reduce("MEAN", x, axis=None), values
        )

    trainer.TensorFlowTrainer._maybe_symbolic_build = build_of_one_replica
    trainer.reduce_per_replica = reduce_of_hosts


def _first(value):
    """The part of a batch that one replica of this host has."""
    return _STRATEGY[0].experimental_local_results(value)[0]
