"""Common parts of the benchmarks: turns, tables, and the environment.

Ratios are those of the medians of one run, in which the candidates take turns,
so that other load on the machine affects all of them alike. The processor time
of the process is given beside the wall-clock time: it does not grow when other
processes take their share, and is the steadier of the two on a busy machine.
"""

import csv
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time

import keras

from keras_bar.deployment.latency import processor_name

RESULTS = pathlib.Path(__file__).parent / "results"
PACKAGES = ("keras", "tensorflow-cpu", "tensorflow", "jax", "torch", "numpy")


class Watch:
    """Seconds that candidates took, turn by turn.

    Attributes:
        wall: Dict from label to a list of wall-clock seconds.
        cpu: Dict from label to a list of seconds of processor time, over all
            threads.
    """

    def __init__(self, labels):
        self.wall = {label: [] for label in labels}
        self.cpu = {label: [] for label in labels}
        self._began = (0.0, 0.0)

    def start(self):
        self._began = (time.perf_counter(), time.process_time())

    def stop(self, label, calls=1):
        wall, cpu = self._began
        self.wall[label].append((time.perf_counter() - wall) / calls)
        self.cpu[label].append((time.process_time() - cpu) / calls)

    def drop(self, first, last=0):
        """Forgets the first and the last turns."""
        for times in (self.wall, self.cpu):
            for label, x in times.items():
                times[label] = x[first : len(x) - last]

    def rows(self, baseline):
        """One dict per label: medians in ms, and ratios to the baseline's."""
        return [
            {
                "candidate": label,
                "ms": round(1e3 * _median(self.wall[label]), 3),
                "ratio": _ratio(self.wall, label, baseline),
                "cpu_ms": round(1e3 * _median(self.cpu[label]), 3),
                "cpu_ratio": _ratio(self.cpu, label, baseline),
                "turns": len(self.wall[label]),
            }
            for label in self.wall
        ]


def interleave(functions, turns, calls=1, warmup=2):
    """Times functions that take turns.

    Args:
        functions: Dict from label to a function without arguments.
        turns: Integer, timed turns of each.
        calls: Integer, calls per turn.
        warmup: Integer, untimed turns before.

    Returns:
        A `Watch`.
    """
    watch = Watch(functions)
    for _ in range(warmup + turns):
        for label, function in functions.items():
            watch.start()
            for _ in range(calls):
                function()
            watch.stop(label, calls)
    watch.drop(warmup)
    return watch


def forward(model, x, jit_compile):
    """A function that runs a model on a batch, a NumPy array."""
    x = keras.ops.convert_to_tensor(x)
    if keras.backend.backend() != "jax":
        function = compiled(lambda x: model(x, training=False), jit_compile)
        return lambda: wait(function(x))
    # Variables are arguments: a compiled function treats others as constants.
    state = [
        [v.value for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
        )
    ]
    function = compiled(
        lambda state, x: model.stateless_call(*state, x, training=False)[0],
        jit_compile,
    )
    return lambda: wait(function(state, x))


def compiled(function, jit_compile):
    """Compiles a function in the way of the backend.

    Args:
        function: Function of tensors.
        jit_compile: Boolean, whether TensorFlow compiles with XLA. JAX always
            does; torch compiles nothing here.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=jit_compile)
    if backend == "jax":
        import jax

        return jax.jit(function)
    import torch

    return torch.no_grad()(function)


def wait(tensor):
    """Waits until a tensor is computed."""
    if keras.backend.backend() == "jax":
        tensor.block_until_ready()
    elif keras.backend.backend() == "tensorflow":
        tensor.numpy()


def set_threads(count):
    """Limits the threads of one operation. Call it before any computation."""
    if not count:
        return
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    elif backend == "torch":
        import torch

        torch.set_num_threads(count)
    elif count == 1:
        # XLA reads the variable at JAX's first computation.
        flag = "--xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"


def table(rows):
    """Formats dicts with equal keys as an aligned table."""
    cells = [list(rows[0]), *([str(x) for x in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def report(name, settings, rows, **more):
    """Prints a table and writes it to `benchmarks/results/<name>.json`."""
    print(table(rows))
    document = {
        "settings": settings,
        "environment": environment(),
        "rows": rows,
        **more,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"written to {os.path.relpath(path)}")


def read(path):
    """The rows of a table."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def append(path, rows):
    """Adds rows to a table."""
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def environment():
    """Describes the machine and the versions of this measurement."""
    return {
        "backend": keras.backend.backend(),
        "versions": {
            name: version for name in PACKAGES if (version := _version(name))
        },
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        # Other processes were running if this exceeds the number of cores.
        "load": round(os.getloadavg()[0], 1),
    }


def _ratio(times, label, baseline):
    return round(_median(times[label]) / _median(times[baseline]), 3)


def _median(x):
    return statistics.median(x)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
