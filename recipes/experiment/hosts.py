"""Several hosts: TensorFlow's `MultiWorkerMirroredStrategy` and Keras's `fit`.

Every host runs the same command, with `TF_CONFIG` in its environment, which
names all hosts and tells which of them this is. All of them train; the first
one, the chief, also writes to the output folder, from which all of them read.
"""

import inspect
import json
import os
import signal
import time

import keras

from keras_bar import files

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
    TensorFlow is used for anything else."""
    if _STRATEGY:
        return
    workers, index = read_config()
    _mend_trainer()
    import tensorflow as tf

    others = ", ".join(workers)
    print(f"host {index} of {len(workers)}, waiting for {others}", flush=True)
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
    """The addresses of the hosts in `TF_CONFIG`, and the index of this one."""
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


def strategy():
    """The strategy of all hosts."""
    return _STRATEGY[0]


def index():
    """Which of the hosts this is."""
    return read_config()[1] if several() else 0


def is_chief():
    """Whether this host writes to the output folder."""
    return index() == 0


def _sum(value):
    import tensorflow as tf

    return strategy().reduce("SUM", tf.constant(value, tf.int64), axis=None)


def wait():
    """Waits until all hosts have come here."""
    if several():
        _sum(0)


def chiefs(value):
    """The chief's value of an integer or a boolean, on every host. Each host
    may see a file at another time, so that one of them has to decide."""
    if not several():
        return value
    return int(_sum(int(value) if is_chief() else 0))


def wait_for_file(path):
    """Waits until all hosts have come here and see a file of the chief's."""
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


def write(path, value):
    """Lets the chief write a JSON file that all hosts see then."""
    if is_chief():
        with files.replacing(path) as new:
            new.write_text(json.dumps(value, indent=1), encoding="utf-8")
    wait_for_file(path)


def agree(path, value):
    """What a JSON file holds; where there is none it is written first, with
    the chief's value."""
    if not chiefs(path.exists()):
        write(path, value)
    wait_for_file(path)
    return files.read_json(path)


def run_on_chief_first(make):
    """Calls a function on the chief first, then on the other hosts, so
    that they find what it has written."""
    if is_chief():
        made = make()
        wait()
        return made
    wait()
    return make()


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

    def first(value):
        return strategy().experimental_local_results(value)[0]

    def build_on_one_replica(self, iterator=None, data_batch=None):
        if iterator is not None and self.distribute_strategy is _STRATEGY[0]:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(first, next(batches))
                break
            iterator = None
        return build(self, iterator, data_batch)

    def reduce_over_hosts(values, own, reduction):
        if own is not _STRATEGY[0] or reduction not in ("auto", "mean"):
            return reduce(values, own, reduction)
        return keras.tree.map_structure(
            lambda x: own.reduce("MEAN", x, axis=None), values
        )

    trainer.TensorFlowTrainer._maybe_symbolic_build = build_on_one_replica
    trainer.reduce_per_replica = reduce_over_hosts
