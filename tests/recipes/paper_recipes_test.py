"""The recipes of the paper's data sets, on synthetic images and with small
networks."""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest
import tensorflow as tf

pytest.importorskip("tensorflow_datasets")

import keras_bar  # noqa: E402
from keras_bar import multi_host  # noqa: E402
from keras_bar.datasets import sources  # noqa: E402
from keras_bar.devices import replicas  # noqa: E402
from recipes.data import registry  # noqa: E402
from recipes.experiment import devices  # noqa: E402
from recipes.experiment import training  # noqa: E402
from tests.helpers import archives  # noqa: E402
from tests.recipes.fashion import squeezed  # noqa: E402

# Nobody listens there.
CLOSED = "http://127.0.0.1:9"
RECIPES = {
    "cifar10": "cifar10",
    "cifar100": "cifar100",
    "mio_tcd": "mio_tcd",
    "tinyimagenet": "tiny_imagenet",
}
SHAPES = {
    "cifar10": ((32, 32, 3), 10),
    "cifar100": ((32, 32, 3), 100),
    "mio_tcd": ((128, 128, 3), 11),
    "tiny_imagenet": ((64, 64, 3), 200),
}
SHORT = ["--seeds", "0", "--factors", "2", "--scale", "0.01"] + [
    "--images",
    "128",
]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Two convolutions instead of the paper's networks."""
    vgg = functools.partial(keras_bar.models.VGG, widths=(8,))
    for name, shape in SHAPES.items():
        for key in (name, f"{name}-synthetic"):
            known = dataclasses.replace(
                registry.DATASETS[key],
                networks={"vgg": functools.partial(vgg, *shape)},
            )
            monkeypatch.setitem(registry.DATASETS, key, known)


def run(recipe, folder, *arguments):
    module = importlib.import_module(f"recipes.{recipe}")
    paths = ["--data-dir", folder / "data", "--output", folder / "out"]
    module.main([*map(str, paths), *SHORT, *arguments])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_synthetic_images_from_end_to_end(
    recipe, tmp_path, capsys, monkeypatch
):
    # Its training is that of Fashion-MNIST's.
    monkeypatch.setattr(
        training.Experiment, "train_full", lambda self: self.build()
    )
    run(recipe, tmp_path, "--synthetic")
    # Said at the start and at the end.
    shown = capsys.readouterr().out
    assert shown.count("synthetic images, NOT") >= 2
    out = tmp_path / "out"
    (cell,) = out.glob("vgg-*-bar-volume-2-seed0")
    row = json.loads((cell / "report.json").read_text())
    assert 0.45 < row["volume"] <= 0.5
    compact = keras.models.load_model(cell / "compact.keras", compile=False)
    volume = keras_bar.measure_cost(compact).volume
    assert volume == pytest.approx(row["volume"] * row["full_volume"])
    for name in ("budget.png", "channels.svg", "prune.json", "finetune.json"):
        assert (cell / name).stat().st_size > 0
    assert list((cell / "tensorboard" / "prune").rglob("events*"))
    table = (out / "tables.md").read_text()
    assert "NOT" in table and "| BAR | 2 | 1 |" in squeezed(table)
    # Nobody's numbers stand beside those of synthetic images.
    assert "CIFAR-10," not in table and "published" not in table
    for name in ("results.csv", "volume.png", "flops.svg"):
        assert (out / name).stat().st_size > 0
    run(recipe, tmp_path, "--synthetic")
    assert "done before" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_options_reach_the_training(tmp_path, monkeypatch):
    """On the true layout, as the real data set has it."""
    monkeypatch.setattr(
        training.Experiment, "finetune", lambda self, _, small, **more: small
    )
    monkeypatch.setattr(
        training.Experiment, "train_full", lambda self: self.build()
    )
    archives.write("cifar10", tmp_path / "data", 8, 4)
    run(
        "cifar10",
        tmp_path,
        *("--batch-size", "16", "--mixed-precision", "--jit", "off"),
        *("--connectivity", "regular", "--images", "40"),
    )
    assert keras.config.dtype_policy().name == "float32"
    cell = tmp_path / "out" / "vgg-scratch-bar-volume-2-seed0"
    gated = keras.models.load_model(cell / "gated.keras", compile=False)
    layer = gated.get_layer("group1_conv1")
    assert layer.compute_dtype == "bfloat16"
    found = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert found["batch_size"] == 16 and found["connectivity"] == "regular"
    assert found["pictures"].endswith(" 40")


def test_errors_before_any_time_is_spent(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(sources.urllib.request, "urlopen", refuse)
    for arguments, why in (
        ([], "cifar-10-binary.tar.gz"),
        (["--skip-broken"], "Expected no --skip-broken"),
        (["--batch-size", "0"], "an integer of 1 or more"),
        (["--network", "resnet50"], "Expected one of vgg"),
        (["--scale", "0"], "a number in (0, 100)"),
    ):
        with pytest.raises(SystemExit) as error:
            run("cifar10", tmp_path, *arguments)
        assert error.value.code == 2
        assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def check(batch, jit, precision):
    devices.check(
        argparse.Namespace(
            strategy="mirrored",
            batch_size=batch,
            jit=jit,
            mixed_precision=precision,
        )
    )


def test_what_several_devices_cannot_do(monkeypatch):
    monkeypatch.setattr(devices.shared, "replicas", lambda strategy: 3)
    check(66, "off", "bfloat16")
    with pytest.raises(ValueError, match="multiple of 3"):
        check(64, "off", None)
    if keras.backend.backend() != "tensorflow":
        check(66, "auto", "float16")
        return
    with pytest.raises(ValueError, match="Expected --mixed-precision bfloat16"):
        check(66, "off", "float16")
    for jit in ("on", "auto"):
        with pytest.raises(ValueError, match=f"Received: --jit {jit}"):
            check(66, jit, None)


def test_a_batch_that_is_not_filled(tmp_path, capsys):
    """With all pictures, whose number is known when they are there."""
    recipe = importlib.import_module("recipes.cifar10")
    paths = ["--data-dir", str(tmp_path), "--output", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        factors = ["--factors", "2"]
        recipe.main(["--synthetic", "--batch-size", "1024", *factors, *paths])
    assert "do not fill one batch" in capsys.readouterr().err


def test_strategies():
    assert replicas(multi_host.find_strategy("none")) == 1
    assert multi_host.find_strategy("auto") is None
    if keras.backend.backend() == "torch":
        with pytest.raises(ValueError, match="the strategy 'auto' or 'none'"):
            multi_host.find_strategy("mirrored")
        return
    strategy = multi_host.find_strategy("mirrored")
    assert multi_host.find_strategy("mirrored") is strategy
    assert replicas(strategy) == 1
    kind = keras.distribution.DataParallel
    if keras.backend.backend() == "tensorflow":
        kind = tf.distribute.MirroredStrategy
    assert isinstance(strategy, kind)


@pytest.mark.parametrize("name", SHAPES)
def test_a_missing_data_set_is_told_of_before_keras_is_imported(name, tmp_path):
    recipe = next(x for x, y in RECIPES.items() if y == name)
    process = subprocess.run(
        [sys.executable, "-X", "importtime", f"recipes/{recipe}.py"]
        + ["--data-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        env={**os.environ, "http_proxy": CLOSED, "https_proxy": CLOSED},
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert process.returncode == 2
    *imports, last = process.stderr.splitlines()
    assert sources.SOURCES[name].archive in last and "Expected" in last
    assert not any("keras" in x or "numpy" in x for x in imports)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "several"], "argument --strategy: invalid choice"),
        (["--scale", "x"], "argument --scale: Invalid value"),
        (["--network", "vgg"], "Expected one of wide_resnet"),
    ],
)
def test_bad_arguments_are_told_of_before_the_data(arguments, message):
    """And before Keras is imported."""
    process = subprocess.run(
        [sys.executable, "-X", "importtime", "recipes/cifar10.py", *arguments]
        + ["--data-dir", "/nowhere"],
        capture_output=True,
        text=True,
        env={**os.environ, "http_proxy": CLOSED, "https_proxy": CLOSED},
        cwd=pathlib.Path(__file__).parents[2],
    )
    assert process.returncode == 2
    *imports, last = process.stderr.splitlines()
    assert message in last and "cifar-10" not in last
    assert not any("keras" in x or "numpy" in x for x in imports)
