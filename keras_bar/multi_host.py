"""Training on several devices and hosts, with TensorFlow and JAX."""

import contextlib
import json
import os
import pathlib
import signal
import time
import zlib
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_bar import devices
from keras_bar import files
from keras_bar import keras_internals

__all__ = [
    "Hosts",
    "current",
    "find_strategy",
    "is_lost_host",
    "join",
]

EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Hosts:
    """The hosts that train a model together.

    Keras 3 cannot `fit` with TensorFlow's `MultiWorkerMirroredStrategy` by
    itself (Keras issue 20585). This class replaces the two functions of Keras's
    trainer that fail under this strategy. On JAX nothing is replaced.

    All hosts run the same program and train. The first one, the chief, also
    writes files, which all hosts read from a file system that they share.
    Without a strategy, this process is the chief and never waits.

    Args:
        strategy: `tf.distribute.MultiWorkerMirroredStrategy`, or a
            `keras.distribution.DataParallel` over all hosts, or None for a
            single host.
        patience: Float, maximum seconds until the other hosts see a file that
            the chief has written. Network file systems may take half a minute.

    Attributes:
        strategy: The strategy, or None.
        index: Integer, which of the hosts this is.
        is_chief: Boolean, whether this host writes.

    Raises:
        ValueError: If the trainer of the installed Keras is not like that of
            Keras 3.15.

    Example:

    >>> from keras_bar import multi_host
    >>> strategy = None  # tf.distribute.MultiWorkerMirroredStrategy()
    >>> hosts = multi_host.Hosts(strategy)
    >>> backup = keras_bar.callbacks.Backup("backup", hosts)
    >>> if hosts.is_chief:
    ...     print("writes")
    writes
    """

    def __init__(self, strategy: Any = None, patience: float = 90.0):
        self.strategy = strategy
        self.patience = patience
        self.index = 0
        if isinstance(strategy, keras.distribution.DataParallel):
            import jax

            self.index = jax.process_index()
        elif strategy is not None:
            keras_internals.mend_trainer(strategy)
            self.index = strategy.cluster_resolver.task_id
        self.is_chief = self.index == 0

    def from_chief(self, value: int) -> int:
        """Returns the chief's value of an integer or a boolean on every host.

        Hosts may see a file at different times, so one of them has to decide.
        """
        if self.strategy is None:
            return int(value)
        if isinstance(self.strategy, keras.distribution.DataParallel):
            from jax.experimental import multihost_utils

            # JAX has no integers of 64 bits, and checksums have 32.
            own = np.uint32(value)
            return int(multihost_utils.broadcast_one_to_all(own))
        own = ops.convert_to_tensor(int(value) * self.is_chief, "int64")
        return int(self.strategy.reduce("SUM", own, axis=None))

    def wait(self) -> None:
        """Waits until all hosts have reached this call."""
        self.from_chief(0)

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Context that the other hosts enter after the chief has left it, so
        that they find the files that it has written."""
        if not self.is_chief:
            self.wait()
        yield
        if self.is_chief:
            self.wait()

    def check_same(self, value: Any) -> None:
        """Checks that all hosts do the same work. Otherwise they would wait for
        each other forever.

        Args:
            value: A value that JSON can hold, such as a dict of settings.

        Raises:
            ValueError: If the value differs from the chief's.
        """
        own = zlib.crc32(json.dumps(value).encode())
        if own != self.from_chief(own):
            raise ValueError(
                "The hosts do different work. Expected the same settings on "
                "all of them. Received, other than on the first one: "
                f"{value}"
            )

    def wait_for_file(self, path: pathlib.Path) -> None:
        """Waits until all hosts have reached this call and see a file.

        Raises:
            OSError: If the file is not seen in time.
        """
        self.wait()
        until = time.monotonic() + self.patience
        while not path.exists():
            if time.monotonic() > until:
                raise OSError(
                    "A host does not see a file that another one wrote. "
                    "Expected a folder on a file system that all hosts share. "
                    f"Received: {path.parent}"
                )
            time.sleep(0.1)

    def write_json(self, path: pathlib.Path, value: Any) -> None:
        """Lets the chief write a JSON file, and waits until all see it."""
        if self.is_chief:
            files.write_json(path, value)
        self.wait_for_file(path)

    def agree(self, path: pathlib.Path, value: dict) -> dict:
        """Returns the content of a JSON file. If the file does not exist, the
        chief first writes its value to it."""
        if not self.from_chief(path.exists()):
            self.write_json(path, value)
        self.wait_for_file(path)
        return files.read_json(path)


# The hosts that have been joined, if any.
_JOINED: list[Hosts] = []


def current() -> Hosts:
    """Returns the hosts that train together: those that were joined, otherwise
    this one alone.

    Example:

    >>> from keras_bar import multi_host
    >>> multi_host.current().is_chief
    True
    """
    return _JOINED[0] if _JOINED else Hosts()


def join(patience: float = 90.0) -> Hosts:
    """Joins the hosts that `TF_CONFIG` lists, and waits for them.

    Every host runs the same command. The environment variable `TF_CONFIG` lists
    all hosts, and says which of them this is, on JAX, too. Call this function
    before the backend is used for anything else; once they are joined, it
    returns the same hosts. A `SIGTERM` ends the process at once, as it does
    without TensorFlow, which would wait for a good moment.

    Args:
        patience: See `Hosts`.

    Returns:
        `Hosts` with a `tf.distribute.MultiWorkerMirroredStrategy`, or on JAX a
        `keras.distribution.DataParallel`.

    Raises:
        ValueError: If `TF_CONFIG` is missing or wrong.
        OSError: If the hosts cannot be joined, as when a port is in use.

    Example:

    >>> from keras_bar import multi_host
    >>> import os
    >>> config = os.environ.pop("TF_CONFIG", None)
    >>> multi_host.join()
    Traceback (most recent call last):
    ValueError: The hosts are unknown. Expected the environment variable ...
    """
    if _JOINED:
        return _JOINED[0]
    workers, index = read_config()
    others = ", ".join(workers)
    print(f"host {index} of {len(workers)}, waiting for {others}", flush=True)
    on_jax = keras.backend.backend() == "jax"
    meet = _meet_on_jax if on_jax else _meet_on_tensorflow
    try:
        strategy = meet(workers, index)
    except _errors() as error:
        raise OSError(
            "The hosts cannot be joined. Expected a free port, with nothing "
            f"that is left of an earlier run. Received: {workers[index]}, "
            f"where {keras.backend.backend()} says: {error}"
        ) from error
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _JOINED.append(Hosts(strategy, patience))
    return _JOINED[0]


def _meet_on_tensorflow(workers, index):
    import tensorflow as tf

    return tf.distribute.MultiWorkerMirroredStrategy()


def _meet_on_jax(workers, index):
    keras.distribution.initialize(workers[0], len(workers), index)
    return _OfKnownLength()


class _OfKnownLength(keras.distribution.DataParallel):
    """Shares the batches of a `tf.data.Dataset`, whose number Keras forgets."""

    def distribute_dataset(self, dataset):
        import tensorflow as tf

        length = dataset.cardinality()
        part = super().distribute_dataset(dataset)
        return part.apply(tf.data.experimental.assert_cardinality(length))


def _errors():
    """Tuple of the errors of the backend's runtime."""
    if keras.backend.backend() == "jax":
        return (RuntimeError,)
    import tensorflow as tf

    return (tf.errors.OpError,)


def is_lost_host(error: BaseException) -> bool:
    """Returns whether an error of the backend says that another of the joined
    hosts, or a device, is gone.

    Example:

    >>> from keras_bar import multi_host
    >>> multi_host.is_lost_host(ValueError("no matter of hosts"))
    False
    """
    if not _JOINED:
        return False
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(error, jax.errors.JaxRuntimeError)
    from tensorflow import errors

    lost = errors.UnavailableError, errors.AbortedError, errors.InternalError
    return isinstance(error, lost)


def find_strategy(name: str = "auto") -> Any:
    """Finds the strategy for the devices that are there.

    Args:
        name: `"auto"` for all local accelerators if there are several, and
            otherwise one device; `"none"` for one device; `"mirrored"` for all
            local accelerators, or the CPUs that the backend was told of;
            `"multiworker"` for those of all hosts in `TF_CONFIG`, which are
            joined, so nothing else must have used the backend before.

    Returns:
        A `tf.distribute.Strategy`, or on JAX a
        `keras.distribution.DataParallel`, the same each time; or None for one
        device. Make, compile and train models in its `scope()`.

    Raises:
        ValueError: If the backend is PyTorch and the name is another than
            `"auto"` and `"none"`, or `TF_CONFIG` is missing or wrong.

    Example:

    >>> from keras_bar import multi_host
    >>> multi_host.find_strategy("none") is None
    True
    """
    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        if name not in ("auto", "none"):
            raise ValueError(
                "Several devices train with TensorFlow and JAX only. Expected "
                "the strategy 'auto' or 'none', or one of these backends. "
                f"Received: {name!r}, and the backend {backend}"
            )
        return None
    if name == "multiworker":
        return join().strategy
    found = [] if name == "none" else devices.local("GPU")
    if name == "mirrored":
        found = found or devices.local("CPU")
    elif len(found) < 2:
        return None
    return devices.mirrored(tuple(found))


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
