"""Several devices and several hosts, through a recipe.

Hosts are processes on the loopback interface. This file runs itself as a
script, once per host: the backend must be told of devices before it starts.
"""

import dataclasses
import functools
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow_datasets")

from tests.recipes import loopback  # noqa: E402

pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="trains on one device"
)

ROOT = pathlib.Path(__file__).parents[2]
CELL = "vgg-scratch-bar-volume-2-seed0"
SHORT = ["--synthetic", "--seeds", "0", "--factors", "2", "--scale", "0.05"]


def main():
    """Two convolutions instead of WideResNet-26-12."""
    from keras_bar import models
    from recipes import cifar10
    from recipes.data import registry
    from recipes.experiment import command

    if "mirrored" in sys.argv and keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", 2)
    elif "mirrored" in sys.argv:
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        two = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, two)
    network = functools.partial(models.VGG, (32, 32, 3), widths=(8,))
    registry.DATASETS["cifar10-synthetic"] = dataclasses.replace(
        registry.DATASETS["cifar10-synthetic"], networks={"vgg": network}
    )
    command.run(lambda: cifar10.main(sys.argv[1:]))


class Processes:
    """The recipe on one host or on several.

    Args:
        folder: `pathlib.Path`, where the data is, and what they write.
        output: String, name of their output folder in it.
        strategy: `"mirrored"` or `"multiworker"`.
        count: Integer, the number of hosts.
    """

    def __init__(self, folder, output, strategy, count=1):
        self.given = [*SHORT, "--images", "128", "--strategy", strategy]
        self.given += ["--data-dir", str(folder)]
        self.given += ["--output", str(folder / output)]
        self.cell = folder / output / CELL
        self.logs = [folder / f"{output}{i}.log" for i in range(count)]
        workers = [f"127.0.0.1:{x}" for x in loopback.free_ports(count)]
        self.processes = [self._start(workers, i) for i in range(count)]

    def _start(self, workers, index):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": workers}, "task": task}
        with self.logs[index].open("w") as log:
            return subprocess.Popen(
                [sys.executable, __file__, *self.given],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": str(ROOT),
                    "TF_CONFIG": json.dumps(config),
                    # It fails where a device has no part of a last batch.
                    "TF_ENABLE_ONEDNN_OPTS": "0",
                    "CUDA_VISIBLE_DEVICES": "",
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait()

    def finish(self):
        """Waits until they have ended well; returns what they have shown."""
        codes = [x.wait(loopback.PATIENCE) for x in self.processes]
        shown = self.shown()
        assert not any(codes), "\n\n".join(shown)[-5000:]
        return shown

    def shown(self):
        return [x.read_text() for x in self.logs]


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory):
    """The folder of a cell that was trained on two devices of one host."""
    folder = tmp_path_factory.mktemp("devices")
    with Processes(folder, "mirrored", "mirrored") as one:
        one.finish()
    return one.cell


@pytest.fixture(scope="module")
def lost(mirrored):
    """Two hosts, of which one was killed. Yields what the other has shown, its
    exit code, and the folder of the cell."""
    folder = mirrored.parents[1]
    with Processes(folder, "hosts", "multiworker", 2) as two:
        kept = two.cell / "unfinished" / "prune"
        loopback.wait_for(
            lambda: list(kept.glob("epoch-2-*")) or two.processes[0].poll()
        )
        two.processes[1].kill()
        code = two.processes[0].wait(loopback.PATIENCE)
    return two.shown()[0], code, two.cell


@pytest.fixture(scope="module")
def restarted(lost):
    """What the two hosts have shown after a restart."""
    folder = lost[2].parents[1]
    with Processes(folder, "hosts", "multiworker", 2) as two:
        return two.finish()


def journals(cell):
    """Dict from parts to arrays, epochs times logs, of a cell's training."""
    found = {}
    for part in ("prune", "finetune"):
        rows = json.loads((cell / f"{part}.json").read_text()).values()
        names = sorted(set(next(iter(rows))) - {"seconds"})
        found[part] = np.array([[row[x] for x in names] for row in rows])
    return found


@pytest.mark.slow
def test_two_devices_prune_to_the_budget(mirrored):
    report = json.loads((mirrored / "report.json").read_text())
    assert 0.45 < report["volume"] <= 0.5
    assert len(journals(mirrored)["prune"]) == 4


@pytest.mark.slow
def test_a_lost_host_is_told_of(lost):
    shown, code, cell = lost
    assert code != 0
    if keras.backend.backend() == "tensorflow":
        assert code == 1
        assert "Another host is gone" in shown
        assert "the same command, on all hosts, resumes" in shown
        assert "Traceback" not in shown
    assert not (cell / "report.json").exists()


@pytest.mark.slow
def test_restarted_hosts_go_on(restarted):
    for shown in restarted:
        assert "teacher: done before" in shown
        assert "prune, resumed after epoch" in shown


@pytest.mark.slow
def test_hosts_train_like_the_devices_of_one(mirrored, lost, restarted):
    """Though one of them was killed on the way."""
    found, expected = journals(lost[2]), journals(mirrored)
    for part, values in expected.items():
        np.testing.assert_allclose(found[part], values, rtol=1e-3, atol=1e-4)
    for name in ("gated", "compact"):
        one, other = (
            keras.models.load_model(x / f"{name}.keras", compile=False)
            for x in (lost[2], mirrored)
        )
        for x, y in zip(one.weights, other.weights, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-2, atol=1e-3)
    reports = [
        json.loads((x / "report.json").read_text()) for x in (lost[2], mirrored)
    ]
    assert reports[0]["volume"] == reports[1]["volume"]
    assert reports[0]["accuracy"] == reports[1]["accuracy"]


if __name__ == "__main__":
    main()
