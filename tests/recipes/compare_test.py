"""The recipe that compares all methods, on a small network."""

import argparse
import csv
import dataclasses
import functools
import shutil

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import baselines
from recipes import compare
from recipes import methods
from recipes.data import registry
from recipes.experiment import phases
from recipes.experiment.key import ExperimentKey
from recipes.experiment.training import Experiment
from recipes.experiment.training import TrainingOptions
from recipes.experiment.training import make_distiller
from recipes.methods import halving
from recipes.methods import penalty
from tests.recipes import fashion
from tests.recipes.fashion import lines_of
from tests.recipes.fashion import squeezed

BUDGETED = ["bar", "morphnet", "random", "vq", "id", "wm"]
CELL = "vgg-teacher-{}-volume-2-seed{}"
TEACHER = "vgg-scratch-teacher-volume-1-seed0"
# One of each kind: those with a penalty take the way of LZR, those that halve
# the volume that of WM. BAR has recipes of its own, of which that for digits is
# tested with every change.
FAST = ("lzr", "narrow", "one-shot", "wm")
# Trainings of pruned networks that are, line by line, those of WM.
ALIKE = {"lzr": "finetune", "one-shot": "train", "narrow": "train"}


def network():
    return keras_bar.models.VGG((14, 14, 1), widths=(8,))


def run(*arguments):
    fashion.run(compare.main, *arguments, "--network", "vgg", "--factors", "2")


def leave_out_what_is_alike(patch):
    """Networks of the methods in `ALIKE` stay as they were pruned."""
    train = Experiment.distill

    def distill(experiment, part, teacher, student, *args, **options):
        if ALIKE.get(experiment.key.method) == part:
            return student
        return train(experiment, part, teacher, student, *args, **options)

    patch.setattr(Experiment, "distill", distill)


@pytest.fixture(scope="module")
def finished(pictures, tmp_path_factory):
    """A method of each kind; a slow test trains all of the paper's."""
    folder = tmp_path_factory.mktemp("table")
    with pytest.MonkeyPatch.context() as patch:
        leave_out_what_is_alike(patch)
        once = functools.partial(baselines.find_strength, trials=1)
        patch.setattr(baselines, "find_strength", once)
        arguments = ("--network", "vgg", "--factors", "2", "--methods", *FAST)
        fashion.finish(
            compare.main, pictures, folder, *arguments, networks=False
        )
    return folder


def test_a_row_per_method(finished):
    assert_rows(finished, FAST)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_a_row_per_method_of_whole_trainings(pictures, tmp_path):
    run(pictures, tmp_path)
    assert_rows(tmp_path, compare.COMPARED)


def assert_rows(folder, compared):
    """Asserts that each method has a row and a network of that row's volume,
    and that methods with a budget keep it."""
    rows = fashion.rows_of(folder)
    assert set(rows) == set(compared)
    for method in {*BUDGETED} & {*compared}:
        assert 0.45 < float(rows[method]["volume"]) <= 0.5
    if "bar-flops" in rows:
        assert 0.2 < float(rows["bar-flops"]["flops"]) <= 0.25
    for method, row in rows.items():
        path = folder / "fashion_mnist" / CELL.format(method, 0)
        small = keras.models.load_model(path / "compact.keras", compile=False)
        assert row["dataset"] == "fashion_mnist"
        volume = keras_bar.measure_cost(small).volume
        full = float(row["full_volume"])
        assert volume / full == pytest.approx(float(row["volume"]))


def test_pictures_and_tables_of_the_supplement(finished):
    text = (finished / "tables.md").read_text()
    (wm,) = lines_of(text, "WM")
    # The supplement's row for CIFAR-10, which the table names.
    assert "| CIFAR-10, published: accuracy, % |" in squeezed(text)
    assert wm.endswith("| 2.0 | 4.0 | 91.11 |")
    for name in ("volume.png", "volume.svg", "flops.png", "flops.svg"):
        assert (finished / name).stat().st_size > 0


@pytest.mark.usefixtures("undrawn")
def test_a_strength_is_searched_for_with_one_seed(
    finished, pictures, tmp_path, monkeypatch
):
    def refuse(*_, **__):
        raise AssertionError("searches again")

    folder = tmp_path / "again"
    shutil.copytree(finished, folder)
    monkeypatch.setattr(baselines, "find_strength", refuse)
    monkeypatch.setattr(
        Experiment, "finetune", lambda self, _, small, *more: small
    )
    monkeypatch.setattr(Experiment, "train_full", lambda self: self.build())
    run(pictures, folder, "--methods", "lzr", "--seeds", "1")
    with open(folder / "results.csv", newline="") as file:
        rows = [x for x in csv.DictReader(file) if x["method"] == "lzr"]
    assert len(rows) == 2 and rows[0]["strength"] == rows[1]["strength"]
    shrunk = folder / "fashion_mnist/vgg-teacher-lzr-shrunk-volume-1-seed"
    name = f"gated-{float(rows[0]['strength']):g}.keras"
    weights = [
        keras.models.load_model(f"{shrunk}{seed}/{name}", compile=False)
        .get_layer("group1_conv1")
        .kernel
        for seed in (0, 1)
    ]
    assert not np.array_equal(*map(keras.ops.convert_to_numpy, weights))


@pytest.mark.usefixtures("undrawn")
def test_full_networks_of_another_run_serve(
    finished, pictures, tmp_path, monkeypatch, capsys
):
    """Such as one with more images."""
    monkeypatch.setattr(
        Experiment, "distill", lambda self, _, __, small, *___: small
    )
    monkeypatch.setattr(Experiment, "train_full", None)
    given = "--images", "128", "--methods", "one-shot", "--teachers"
    run(pictures, tmp_path, *given, str(finished))
    first, second = (
        keras.models.load_model(
            x / "fashion_mnist" / TEACHER / "teacher.keras", compile=False
        )
        for x in (finished, tmp_path)
    )
    for before, after in zip(
        first.get_weights(), second.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(SystemExit):
        run(pictures, tmp_path, *given, str(finished), "--seeds", "7")
    assert "There is no trained network." in capsys.readouterr().err


def test_expanded_networks_start_anew_with_every_seed(monkeypatch, tmp_path):
    """And the same way, whatever was done before in this process."""
    teacher = network()
    gated = keras_bar.gate(
        teacher, layer=keras_bar.layers.MarkerGate, connectivity="regular"
    )
    for layer in gated.layers:
        if isinstance(layer, keras_bar.layers.MarkerGate):
            layer.fix()
    monkeypatch.setattr(penalty.Penalty, "find_strength", lambda *_: 1.0)
    monkeypatch.setattr(penalty.Penalty, "shrink", lambda *_: gated)
    monkeypatch.setattr(penalty.Penalty, "epochs_left", lambda *_: 0)
    monkeypatch.setattr(
        Experiment, "finetune", lambda self, _, small, *more: small
    )
    data = argparse.Namespace(accuracy=lambda *_: 0.0)

    def kernel(seed):
        key = ExperimentKey("morphnet", 2, seed, "vgg", "volume", "teacher")
        experiment = Experiment(
            key, "fashion_mnist", data, TrainingOptions(), tmp_path
        )
        small, _ = methods.load("morphnet").run(experiment, teacher)
        layer = small.get_layer("group1_conv1")
        return keras.ops.convert_to_numpy(layer.kernel)

    first, other, again = map(kernel, (0, 1, 0))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_network_that_has_taught_can_be_pruned(tmp_path):
    """As when a second strength is tried."""
    key = ExperimentKey("lzr", 2, 0, "vgg", "volume", "teacher")
    experiment = Experiment(
        key, "fashion_mnist", None, TrainingOptions(), tmp_path
    )
    teacher = network()
    expected = len(keras_bar.gate(teacher).trainable_variables)
    make_distiller(teacher, network(), "adam", TrainingOptions())
    assert not teacher.trainable_variables
    student = keras_bar.gate(experiment.source(teacher))
    assert len(student.trainable_variables) == expected


@pytest.mark.usefixtures("undrawn")
def test_rounds_of_the_supplement_serve_all_factors(
    pictures, tmp_path, monkeypatch
):
    """Phases for every halving: 4x continues from 2x. Whether the networks
    are trained makes no difference to that."""
    monkeypatch.setattr(Experiment, "train_full", lambda self: self.build())
    monkeypatch.setattr(
        Experiment, "distill", lambda self, _, __, small, *___: small
    )
    load = phases.load
    monkeypatch.setattr(
        phases,
        "load",
        lambda dataset, kind, scale: (
            phases.Phases(high=1, low=1)
            if kind == "halving"
            else load(dataset, kind, scale)
        ),
    )
    run(pictures, tmp_path, "--methods", "wm")
    place = tmp_path / "fashion_mnist/vgg-teacher-wm-halved-volume-2"
    first = place.with_name(f"{place.name}-seed0") / "round1.keras"
    written = first.stat().st_mtime_ns
    arguments = ("--network", "vgg", "--factors", "4", "--methods", "wm")
    fashion.run(compare.main, pictures, tmp_path, *arguments)
    assert first.stat().st_mtime_ns == written
    assert first.with_name("round2.keras").exists()
    two, four = lines_of((tmp_path / "tables.md").read_text(), "WM")
    assert two.startswith("| WM | 2 | 1 | 2.0 |")
    assert four.startswith("| WM | 4 | 1 | 4.0 |")


def test_halvings_begin_with_a_network_of_their_own(monkeypatch, tmp_path):
    """As in the supplement's section 3.2, where the full network of the other
    methods is trained longer; the methods share it."""
    plan = phases.Phases(high=40, low=10, anew=True)
    monkeypatch.setattr(phases, "load", lambda *_: plan)
    trained = []

    def train(work, part, kind):
        trained.append((work.key.method, part, kind))
        return network()

    monkeypatch.setattr(Experiment, "train_full", train)
    began = []
    monkeypatch.setattr(
        halving.baselines,
        "prune",
        lambda model, *_, **__: began.append(model.get_weights()) or model,
    )
    monkeypatch.setattr(
        Experiment, "distill", lambda self, _, __, small, *___: small
    )
    teacher = network()
    for method in ("wm", "random"):
        key = ExperimentKey(method, 2, 0, "vgg", "volume", "scratch")
        experiment = Experiment(
            key, "cifar10", None, TrainingOptions(), tmp_path
        )
        methods.load(method).run(experiment, teacher)
    assert trained == [("initial", "initial", "halving")]
    for own, other in zip(*began, strict=True):
        np.testing.assert_array_equal(own, other)
    assert not np.array_equal(began[0][0], teacher.get_weights()[0])


def test_a_missing_package_is_told_of_at_once(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(methods.load("vq"), "REQUIREMENTS", ("not_installed",))
    arguments = ["--dataset", "digits", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--methods", "wm", "vq"])
    assert "Received: no not_installed" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_digits_need_no_file(tmp_path, capsys, monkeypatch):
    known = registry.DATASETS["digits"]
    network = functools.partial(fashion.residual, (8, 8, 1), 10)
    small = dataclasses.replace(known, networks={"wide_resnet": network})
    monkeypatch.setitem(registry.DATASETS, "digits", small)
    arguments = ["--dataset", "digits", "--output", str(tmp_path)]
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--data", "digits.npz"])
    assert "Expected no file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        compare.main([*arguments, "--images", "5000"])
    assert "at most 1347" in capsys.readouterr().err
    for wrong, why in (
        (["--network", "vgg"], "one of wide_resnet"),
        (["--factors", "4", "4.0000001"], "Expected different"),
        (["--metric", "flops"], "Expected --metric volume"),
        (["--methods", "morphnet", "--factors", "200"], "Expected"),
    ):
        with pytest.raises(SystemExit):
            compare.main([*arguments, *wrong])
        assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
