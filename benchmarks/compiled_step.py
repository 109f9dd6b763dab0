"""Counts what gates and a budget add to a compiled training step, on JAX.

Compiles the training step of a network three times: without gates, with gates,
and with gates and a `BudgetRegularizer`. XLA says how many kernels each has,
how many bytes they read and write and how much memory they need. Then the steps
take turns, many at a time, so that the time is that of the device alone. With
`--absent-gpu` it compiles for an H100 that need not be there, and only counts.

    KERAS_BACKEND=jax python benchmarks/compiled_step.py
    KERAS_BACKEND=jax python benchmarks/compiled_step.py --absent-gpu
    KERAS_BACKEND=jax python benchmarks/compiled_step.py --network resnet50 \
        --mixed-precision bfloat16
"""

import argparse
import os
import pathlib
import sys

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras_bar
from benchmarks import absent_gpu
from benchmarks import measuring

PLAIN, GATED, BUDGET = "without gates", "gates", "gates and budget"
NETWORKS = {
    "wide_resnet": lambda: keras_bar.models.WideResNet(16, 4),
    "resnet50": lambda: keras_bar.models.ResNet50((64, 64, 3), 200),
}


class CompiledError(Exception):
    """Leaves `fit` once its step is compiled."""


class Capture(keras.callbacks.Callback):
    """Compiles the training step of `fit` just before the first batch.

    Args:
        batch: Pair of arrays, images and classes.
        absent_gpu: Boolean, whether to compile for a GPU that is not there.
        devices: Integer, the number of devices that share the batch.

    Attributes:
        compiled: The step, a function of the state and a batch.
        state: Its arrays.
    """

    def __init__(self, batch, absent_gpu=False, devices=1):
        super().__init__()
        self.batch = batch
        self.absent_gpu = absent_gpu
        self.devices = devices
        self.compiled = self.state = None

    def on_train_batch_begin(self, batch, logs=None):
        model = self.model
        groups = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
        # Copies, because the step frees the arrays that it was given.
        self.state = jax.tree.map(
            lambda x: jax.numpy.array(x.value, copy=True),
            tuple(map(list, groups)),
        )
        if self.absent_gpu:
            self.compiled = absent_gpu.compile_for_h100(
                model.train_step, self.state, self.batch
            )
        else:
            self.compiled = self._compile(model.train_step)
        raise CompiledError

    def _compile(self, step):
        mesh = jax.make_mesh(
            (self.devices,),
            ("batch",),
            (jax.sharding.AxisType.Auto,),
            devices=jax.devices()[: self.devices],
        )
        axes = jax.sharding.PartitionSpec
        copies = jax.sharding.NamedSharding(mesh, axes())
        parts = jax.sharding.NamedSharding(mesh, axes("batch"))
        self.state = jax.device_put(self.state, copies)
        self.batch = jax.device_put(self.batch, parts)
        step = jax.jit(step, donate_argnums=0, out_shardings=(None, copies))
        return step.lower(self.state, self.batch).compile()

    def run(self, steps):
        """Takes steps, and waits for them."""
        for _ in range(steps):
            _, self.state = self.compiled(self.state, self.batch)
        jax.block_until_ready(self.state)


def main(arguments=None):
    settings = parse(arguments)
    measuring.set_threads(settings.threads)
    make = NETWORKS[settings.network]
    steps = {x: capture(x, make, settings) for x in (PLAIN, GATED, BUDGET)}
    if settings.absent_gpu:
        rows = [{"candidate": x} for x in steps]
        device = "H100_absent"
    else:
        times = measuring.interleave(
            {x: lambda y=y: y.run(settings.steps) for x, y in steps.items()},
            settings.turns,
        )
        rows = [
            {
                "candidate": row["candidate"],
                "ms": round(row["ms"] / settings.steps, 3),
                "ratio": row["ratio"],
                "cpu_ratio": row["cpu_ratio"],
            }
            for row in times.rows(PLAIN)
        ]
        device = jax.devices()[0].device_kind.replace(" ", "_")
    rows = [x | counts(steps[x["candidate"]].compiled) for x in rows]
    name = f"compiled_step_{settings.network}_{device}"
    measuring.report(name, vars(settings), rows)


def capture(label, make, settings, devices=1):
    """Compiles the step of the network that `make` makes."""
    keras.utils.set_random_seed(0)
    before = keras.config.dtype_policy()
    if settings.mixed_precision:
        keras.config.set_dtype_policy(f"mixed_{settings.mixed_precision}")
    model = make()
    if label != PLAIN:
        model = keras_bar.gate(model, seed=0)
    keras.config.set_dtype_policy(before)
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(0)
    shape = (settings.batch_size, *model.input_shape[1:])
    x = rng.random(shape, "float32")
    y = rng.integers(0, 10, settings.batch_size)
    batch = jax.numpy.asarray(x), jax.numpy.asarray(y)
    result = Capture(batch, settings.absent_gpu, devices)
    callbacks = [result]
    if label == BUDGET:
        regularizer = keras_bar.callbacks.BudgetRegularizer(
            settings.budget, steps=10_000
        )
        callbacks.insert(0, regularizer)
    data = jax.tree.map(lambda y: np.repeat(y[:1], 2, 0), (x, y))
    try:
        model.fit(
            *data, batch_size=1, epochs=10_000, verbose=0, callbacks=callbacks
        )
    except CompiledError:
        return result


def counts(compiled):
    """Kernels, gigabytes and gigabytes of memory of a compiled step."""
    kernels, moved = absent_gpu.count(compiled.as_text())
    memory = compiled.memory_analysis().temp_size_in_bytes
    return {
        "kernels": kernels,
        "GB": round(moved / 1e9, 3),
        "memory_GB": round(memory / 1e9, 3),
    }


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--network", choices=list(NETWORKS), default="wide_resnet"
    )
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--mixed-precision", choices=["bfloat16", "float16"])
    parser.add_argument("--budget", type=float, default=0.25)
    parser.add_argument("--steps", type=int, default=20, help="per turn")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--absent-gpu", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
