"""Several hosts: TensorFlow's `MultiWorkerMirroredStrategy` and Keras's `fit`.

Every host runs the same command, with `TF_CONFIG` in its environment, which
names all hosts and tells which of them this is. All of them train; the first
one, the chief, also writes to the output folder, from which all of them read.
"""

import json
import os
import signal

from keras_bar import multi_host

EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)

_HOSTS = [multi_host.Hosts()]


def start():
    """Joins the other hosts, and waits for them. Must be called before
    TensorFlow is used for anything else."""
    if current().strategy:
        return
    workers, index = read_config()
    import tensorflow as tf

    others = ", ".join(workers)
    print(f"host {index} of {len(workers)}, waiting for {others}", flush=True)
    try:
        joined = tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        raise OSError(
            "The hosts cannot be joined. Expected a free port, with nothing "
            f"that is left of an earlier run. Received: {workers[index]}, "
            f"where TensorFlow says: {error.message}"
        ) from error
    _HOSTS.append(multi_host.Hosts(joined))
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
        kinds = {*cluster, task["type"]}
        right = kinds == {"worker"} and 0 <= index < len(workers)
    except (ValueError, KeyError, TypeError):
        right = False
    if not right:
        raise ValueError(
            "The hosts are unknown. Expected the environment variable "
            f"TF_CONFIG on every host, such as {EXAMPLE}, with an index of its "
            f"own. Received: TF_CONFIG={text!r}"
        )
    return workers, index


def current():
    """The `Hosts` that train together: those that have been joined, or this one
    alone."""
    return _HOSTS[-1]
