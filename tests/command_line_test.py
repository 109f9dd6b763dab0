"""`python -m keras_bar`, from files to text, JSON, files and exit codes."""

import importlib
import json
import sys

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import __main__ as command_line
from tests.helpers import pruning
from tests.helpers import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of a full and of a gated model."""
    folder = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = tiny.network()
    model.save(folder / "full.keras")
    gated = pruning.close_gates(keras_bar.gate(model, seed=0), share=0.5)
    gated.save(folder / "gated.keras")
    (folder / "text.keras").write_text("no model")
    damaged = bytearray((folder / "full.keras").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (folder / "damaged.keras").write_bytes(damaged)
    whole = (folder / "full.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.keras").touch()
    return folder


def run(*arguments):
    command_line.main([str(x) for x in arguments])


def load(path):
    return keras.models.load_model(path, compile=False)


@pytest.mark.parametrize("name", ["full", "gated"])
def test_cost(folder, capsys, name):
    path = folder / f"{name}.keras"
    expected = keras_bar.measure_cost(load(path))
    run("cost", path)
    assert capsys.readouterr().out == f"{expected}\n"
    run("cost", path, "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["volume"] == expected.volume
    assert [x["name"] for x in found["layers"]] == [
        x.name for x in expected.layers
    ]
    assert (found["regular"] is None) == (name == "full")


def test_explain(folder, capsys):
    run("explain", folder / "gated.keras")
    shown = capsys.readouterr().out
    assert "2 layers can be pruned" in shown
    run("explain", folder / "gated.keras", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["gated"] == ["stem", "branch"]
    assert found["least"]["volume"] == [tiny.POSITIONS, tiny.VOLUME]


@pytest.mark.parametrize("connectivity", ["mixed", "regular"])
def test_compact(folder, tmp_path, capsys, connectivity):
    small = tmp_path / "small.keras"
    options = ["-o", small, "--connectivity", connectivity]
    run("compact", folder / "gated.keras", *options, "--json")
    found = json.loads(capsys.readouterr().out)
    model = load(small)
    assert found["cost"]["flops"] == keras_bar.measure_cost(model).flops
    expected = keras_bar.hard_prune(load(folder / "gated.keras"))
    x, _ = tiny.data()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(x)),
        keras.ops.convert_to_numpy(expected(x)),
        rtol=1e-4,
        atol=1e-5,
    )
    # Another name, for what is there is not overwritten.
    other = tmp_path / "text.keras"
    run("compact", folder / "gated.keras", "-o", other, "--fold-batch-norm")
    assert "wrote" in capsys.readouterr().out
    assert len(load(other).layers) == len(model.layers) - 2


def test_layers_of_ones_own(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_layers.py").write_text(
        "import keras\n\n\n"
        "@keras.saving.register_keras_serializable('own')\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    x = keras.Input((8, 8, 1))
    y = importlib.import_module("own_layers").Twice()(
        keras.layers.Conv2D(3, 3)(x)
    )
    keras.Model(x, y).save("own.keras")
    # As in a process that has not imported the layer.
    del sys.modules["own_layers"]
    del keras.saving.get_custom_objects()["own>Twice"]
    with pytest.raises(SystemExit):
        run("cost", "own.keras")
    error = capsys.readouterr().err
    assert "--import" in error and len(error) < 800
    run("cost", "own.keras", "--import", "own_layers", "--json")
    assert json.loads(capsys.readouterr().out)["volume"] == 108
    with pytest.raises(SystemExit):
        run("cost", "own.keras", "--import", "no_such_module")
    assert "no such module" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cost", "nowhere.keras"], "There is no such file"),
        (["cost", "text.keras"], "not a loadable Keras model"),
        (["explain", "."], "not a loadable Keras model"),
        (["cost", "damaged.keras"], "not a loadable Keras model"),
        (["compact", "full.keras", "-o", "small.h5"], "ends with .keras"),
        (["compact", "gated.keras", "-o", "full.keras"], "not overwritten"),
        (["compact", "gated.keras", "-o", "no/x.keras"], "no such folder"),
        (
            ["compact", "text.keras", "-o", "x.keras"],
            "not a loadable Keras model",
        ),
        (["compact", "gated.keras", "-o", "/proc/x.keras"], "be written"),
        (["compact", "gated.keras", "-o", "text.keras/x.keras"], "no such"),
        (["cost", "empty.keras"], "an empty file"),
        (["cost", "cut.keras"], "cut off"),
        (["explain", "cut.keras"], "copied completely"),
    ],
)
def test_what_is_wrong_is_a_line(
    folder, capsys, monkeypatch, arguments, message
):
    monkeypatch.chdir(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == "" and len(shown.err.splitlines()) == 1
    assert message in shown.err and "Received:" in shown.err
    assert "File not found" not in shown.err
    assert sorted(folder.iterdir()) == before


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    folder, capsys, monkeypatch
):
    def load(settings):
        raise AssertionError("The model was loaded.")

    monkeypatch.setattr(command_line, "load", load)
    with pytest.raises(SystemExit):
        run("compact", folder / "gated.keras", "-o", "/proc/x.keras")
    assert "/proc/x.keras" in capsys.readouterr().err
