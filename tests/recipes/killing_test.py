"""A recipe that is killed goes on as if nothing had happened."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from keras_bar import reports

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
KILLS = 20
TEACHER = "wide_resnet-scratch-teacher-volume-1-seed0"
CELL = "wide_resnet-teacher-bar-volume-8-seed0"
# Seconds.
PATIENCE = 300


def start(folder):
    command = [sys.executable, "recipes/digits.py", "--epochs", "24"]
    return subprocess.Popen(
        [*command, "--output", str(folder)],
        cwd=ROOT,
        env={**os.environ, "TF_DETERMINISTIC_OPS": "1"},
        stdout=subprocess.DEVNULL,
    )


def results(folder):
    """All that does not depend on the clock."""
    report = json.loads((folder / CELL / "report.json").read_text())
    places = {"teacher": TEACHER, "gated": CELL, "compact": CELL}
    history = {}
    for part, place in (
        ("teacher", TEACHER),
        ("prune", CELL),
        ("finetune", CELL),
    ):
        history[part] = reports.read_history(folder / place / f"{part}.json")
        del history[part]["seconds"]
    for result in report["results"].values():
        for name in [x for x in result if x.startswith("latency")]:
            del result[name]
    networks = [
        keras.models.load_model(folder / y / f"{x}.keras", compile=False)
        for x, y in places.items()
    ]
    weights = [x for network in networks for x in network.get_weights()]
    return history, report["results"], weights


def assert_equal(found, expected):
    history, costs, weights = expected
    assert found[1] == costs
    for part, rows in history.items():
        for name, values in rows.items():
            np.testing.assert_allclose(
                found[0][part][name], values, rtol=1e-4, atol=1e-5
            )
    for x, y in zip(found[2], weights, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)


def files_of(folder):
    """The states and networks that are there."""
    return tuple(
        sorted(
            name
            for _, _, names in os.walk(folder)
            for name in names
            if name.endswith((".npz", ".keras"))
        )
    )


def wait_for_changes(process, folder, count):
    """Waits until so many times other states and networks were there: on a
    busy machine, too, kills are to fall into all parts of a training."""
    before = files_of(folder)
    while count and process.poll() is None:
        time.sleep(0.02)
        now = files_of(folder)
        count -= now != before
        before = now


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")
def test_killed_at_random_moments(tmp_path):
    assert start(tmp_path / "undisturbed").wait(PATIENCE) == 0
    expected = results(tmp_path / "undisturbed")
    rng = np.random.default_rng(0)
    folder = tmp_path / "killed"
    kills, finished, left = 0, 0, set()
    while kills < KILLS:
        process = start(folder)
        wait_for_changes(process, folder, rng.integers(8))
        try:
            process.wait(rng.uniform(0, 1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
            left.add(files_of(folder))
        else:
            assert process.returncode == 0
            assert_equal(results(folder), expected)
            shutil.rmtree(folder)
            finished += 1
    assert start(folder).wait(PATIENCE) == 0
    assert_equal(results(folder), expected)
    print(f"{KILLS} kills, {finished + 1} runs that ended")
    # In the midst of different trainings.
    assert len(left) > KILLS // 4
