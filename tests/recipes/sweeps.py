"""Short sweeps over BAR's hyperparameters."""

import csv
import json
import shutil

import pytest

from recipes import sensitivity

TRIALS = 2


def run(pictures, folder, *arguments):
    sensitivity.main(
        ["--data", str(pictures), "--output", str(folder)]
        + ["--images", "256", "--scale", "0.1", "--trials", str(TRIALS)]
        + ["--factors", "2", "--network", "vgg"]
        + list(arguments)
    )


def lend_teacher(source, folder):
    """Copies the full network from one run's folder to another."""
    name = "vgg-scratch-teacher-volume-1-seed0"
    shutil.copytree(source / name, folder / name)


def table(path):
    with path.open(newline="") as file:
        return [
            {x: float(y) for x, y in row.items()}
            for row in csv.DictReader(file)
        ]


def losses(folder):
    """The last loss of every part of every trial: few pictures are too few for
    accuracies to differ."""
    found = {}
    for path in folder.glob("*trial*/*.json"):
        if path.stem in ("prune", "finetune"):
            *_, last = json.loads(path.read_text()).values()
            found[path.parent.name, path.stem] = last["loss"]
    return found


def assert_same(folder, finished):
    """That two sweeps have drawn, trained and found the same."""
    assert table(folder / "trials.csv") == [
        pytest.approx(row) for row in table(finished / "trials.csv")
    ]
    expected = losses(finished)
    count = 2 * len(table(finished / "trials.csv"))
    assert len(expected) == len(set(expected.values())) == count
    assert losses(folder) == pytest.approx(expected, rel=1e-4)
