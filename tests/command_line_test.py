"""`python -m keras_bar`, from files to text, JSON, files and exit codes."""

import json
import os
import pathlib
import subprocess
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
    (folder / "damaged").mkdir()
    (folder / "damaged" / "report.json").write_text("[]")
    (folder / "own").mkdir()
    (folder / "own" / "page.html").mkdir()
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
    assert "2 convolutions can be pruned" in shown
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
    run("compact", folder / "gated.keras", "-o", tmp_path / "text.keras")
    assert "wrote" in capsys.readouterr().out


def test_report(tmp_path, capsys):
    cell = tmp_path / "cell"
    cell.mkdir()
    report = {"accuracy": 0.91, "history": {"prune": {"loss": [2.0, 1.25]}}}
    report |= {"lost": float("nan"), "excess": float("inf"), "done": True}
    (cell / "report.json").write_text(json.dumps(report))
    (tmp_path / "results.csv").write_text("method,accuracy\nbar,0.9123456\n")
    table = (
        "## Made up\n\n| method | volume |\n| --- | --- |\n"
        "| bar | 1/2 < 1 |\n\n"
        "`a < b` [x](javascript:alert(1)) ![y](https://example.com/y.png) "
        "<script>alert(1)</script> <https://example.com>\n\n[z][1]\n\n"
        "[1]: https://example.com\n\n<div onclick='x'>block</div>\n"
    )
    (tmp_path / "tables.md").write_text(table)
    (tmp_path / ".half").mkdir()  # Of a process that was killed.
    (tmp_path / ".half" / "volume.svg").write_text("<svg")
    (tmp_path / "volume.svg").write_text("<svg>&</svg>")
    (tmp_path / "volume.png").write_bytes(b"not this one")
    run("report", tmp_path)
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 1 and "data:image/svg+xml;base64," in page
    assert "<td>bar</td><td>0.9123</td>" in page
    # The text is what people read; its numbers are there, too.
    assert page.index("<td>1/2 &lt; 1</td>") < page.index("<img")
    assert "<h2>Made up</h2>" in page
    assert "<td>prune</td><td>1.25</td>" in page
    # Nothing that would have to be fetched, and nothing that acts.
    assert "<code>a &lt; b</code>" in page
    for x in ("<a ", "<script", 'src="http', 'href="', "<div onclick"):
        assert x not in page


def test_report_of_a_training_in_progress(tmp_path, capsys):
    """With the logs that a recipe has written so far, or one's own callback."""
    cell = tmp_path / "cell"
    cell.mkdir()
    logs = {
        str(i): {"flops": 0.9 - i / 10, "budget": 1 - i / 10} for i in range(3)
    }
    (cell / "prune.json").write_text(json.dumps(logs))
    (cell / "settings.json").write_text(json.dumps({"metric": "flops"}))
    own = tmp_path / "own"
    own.mkdir()
    journal = {"1": {"gate": 10 * [0] + 10 * [1]}}
    (own / "gates.json").write_text(json.dumps(journal))
    run("report", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 2
    assert "moving budget" in page and "channels are to live" in page
    assert not list(cell.glob("*.svg")) and not list(own.glob("*.svg"))


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
    program = (
        "import keras, own_layers\n"
        "x = keras.Input((8, 8, 1))\n"
        "y = own_layers.Twice()(keras.layers.Conv2D(3, 3)(x))\n"
        "keras.Model(x, y).save('own.keras')\n"
    )
    # Made with the backend that is imported fastest.
    environment = {**os.environ, "KERAS_BACKEND": "numpy"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
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
        (["cost", "text.keras"], "This is no Keras model"),
        (["explain", "."], "This is no Keras model"),
        (["cost", "damaged.keras"], "This is no Keras model"),
        (["compact", "full.keras", "-o", "small.h5"], "ends with .keras"),
        (["compact", "gated.keras", "-o", "full.keras"], "not overwritten"),
        (["compact", "gated.keras", "-o", "no/x.keras"], "no such folder"),
        (["compact", "text.keras", "-o", "x.keras"], "no Keras model"),
        (["compact", "gated.keras", "-o", "/proc/x.keras"], "be written"),
        (["compact", "gated.keras", "-o", "text.keras/x.keras"], "no such"),
        (["cost", "empty.keras"], "an empty file"),
        (["cost", "cut.keras"], "cut off"),
        (["explain", "cut.keras"], "copied completely"),
        (["report", "nowhere"], "nothing to report"),
        (["report", "own", "-o", "/proc/x.html"], "be written"),
        (["report", "own", "-o", "own/page.html"], "Is a directory"),
        (["report", ".", "-o", "full.keras"], "ends with .html"),
        (["report", "damaged"], "Expected a JSON object"),
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


def test_as_a_program(folder):
    """Nothing but the JSON on the standard output."""
    process = subprocess.run(
        [sys.executable, "-m", "keras_bar", "cost", "full.keras", "--json"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(pathlib.Path(__file__).parents[1]),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout)["volume"] == tiny.VOLUME
