"""Two hosts on JAX: processes on the loopback interface.

This file runs itself as a script, once per host, and once for two devices of
one host.
"""

import json
import os
import pathlib
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest

from keras_bar import devices
from keras_bar import multi_host
from tests import distribute_test
from tests.helpers import tiny
from tests.helpers.budgets import BudgetRegularizer
from tests.recipes import loopback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX"),
]

LARGE = 2**32 - 1  # As large as a checksum.


def main(name):
    """Trains for an epoch, and prints what every host has found, as JSON."""
    import jax
    import tensorflow as tf

    import keras_bar

    if name == "mirrored":
        jax.config.update("jax_num_cpu_devices", 2)
    strategy = multi_host.find_strategy(name)
    hosts = multi_host.current()
    value = hosts.from_chief(LARGE if hosts.is_chief else 1)
    keras.utils.set_random_seed(0)
    x, y = tiny.data()
    data = tf.data.Dataset.from_tensor_slices((x, y))
    data = data.batch(8, drop_remainder=True)
    with strategy.scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        student = keras_bar.gate(distribute_test.network(), seed=0)
        tiny.prepare(student, keras.optimizers.SGD(0.1))
        history = student.fit(
            data, epochs=1, verbose=0, callbacks=[BudgetRegularizer(0.5)]
        ).history
        with devices.on_one_device(student) as alone:
            outputs = alone.predict(x[:3], verbose=0)
    found = {
        "value": value,
        "hosts": jax.process_count(),
        "is_chief": hosts.is_chief,
        "devices": devices.replicas(strategy),
        "logs": history,
        "outputs": outputs.tolist(),
    }
    print(json.dumps(found))


def start(name, count):
    """What `count` processes have found, list of dicts."""
    root = pathlib.Path(__file__).parents[1]
    workers = [f"127.0.0.1:{x}" for x in loopback.free_ports(count)]
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": workers}, "task": task}
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, name],
                cwd=root,
                env={
                    **os.environ,
                    "PYTHONPATH": str(root),
                    "TF_CONFIG": json.dumps(config),
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    try:
        shown = [x.communicate(timeout=500) for x in processes]
    finally:
        for process in processes:
            process.kill()
    assert not any(x.returncode for x in processes), shown[0][1][-5000:]
    return [json.loads(out.splitlines()[-1]) for out, _ in shown]


def test_two_hosts_train_like_two_devices_of_one():
    (one,), two = start("mirrored", 1), start("multiworker", 2)
    assert [x["is_chief"] for x in two] == [True, False]
    for found in two:
        assert found["hosts"] == found["devices"] == one["devices"] == 2
        assert found["value"] == LARGE
        np.testing.assert_allclose(
            found["outputs"], one["outputs"], rtol=1e-4, atol=1e-5
        )
        for name, values in one["logs"].items():
            np.testing.assert_allclose(
                found["logs"][name], values, rtol=1e-4, err_msg=name
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
