"""The wheel, built and installed in a new environment outside the checkout."""

import json
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile

import numpy as np
import pytest

import keras_bar
from tests.helpers import block_networks
from tests.helpers import pruning

ROOT = pathlib.Path(__file__).parents[1]

# Runs with `-I`: neither the current folder nor PYTHONPATH is searched. One
# process does it all, because importing Keras takes seconds.
SMOKE = """
import importlib.metadata
import pathlib
import runpy
import sys

import keras
import numpy as np

# What was compacted needs Keras alone.
model = keras.models.load_model("plain.keras")
x, y = np.load("x.npy"), np.load("y.npy")
found = keras.ops.convert_to_numpy(model(x, training=False))
np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-5)
assert "keras_bar" not in sys.modules

sys.modules["matplotlib"] = None  # As if it were not installed.
import keras_bar
from keras_bar import reports

package = pathlib.Path(keras_bar.__file__).parent
assert package.is_relative_to(sys.prefix), package
assert (package / "py.typed").is_file()
assert importlib.metadata.version("keras-bar") == keras_bar.__version__
assert reports.paper.load("results")

model = keras_bar.models.WideResNet(8, 0.5, (8, 8, 1), classes=2)
student = keras_bar.gate(model, seed=0)
student.compile("sgd", "mse", run_eagerly=True)
x, y = np.ones((16, 8, 8, 1)), np.zeros((16, 2))
budget = keras_bar.callbacks.BudgetRegularizer(0.5)
student.fit(x, y, batch_size=8, epochs=1, verbose=0, callbacks=[budget])
keras_bar.compact(student).save("small.keras")
# `python -m keras_bar`, and the command.
sys.argv = ["keras_bar", "cost", "small.keras", "--json"]
runpy.run_module("keras_bar", run_name="__main__", alter_sys=True)
sys.argv = [str(pathlib.Path(sys.prefix, "bin", "keras-bar"))]
sys.argv += ["cost", "small.keras"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(command, **options):
    process = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, **options
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
        + ["-d", folder],
        cwd=ROOT,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel, and this one's packages below it."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(
        [sys.executable, "-m", "pip", "--python", python, "install"]
        + ["--no-deps", "--no-index", "--quiet", wheel]
    )
    # Afterwards, so that pip does not see the copy that is installed here.
    # Python does not read the .pth files of a folder that is added this way,
    # so the checkout's editable installation is not found.
    site = run([python, "-c", "import site; print(site.getsitepackages()[0])"])
    below = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    pathlib.Path(site.strip(), "below.pth").write_text("\n".join(sorted(below)))
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    assert wheel.name == f"keras_bar-{keras_bar.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        (metadata,) = (x for x in names if x.endswith(".dist-info/METADATA"))
        lines = file.read(metadata).decode().splitlines()
    roots = {x.partition("/")[0] for x in names}
    assert roots == {"keras_bar", metadata.partition("/")[0]}
    package = ROOT / "keras_bar"
    sources = {
        str(x.relative_to(ROOT))
        for x in package.rglob("*")
        if x.is_file() and "__pycache__" not in x.parts
    }
    assert sources == {x for x in names if x.startswith("keras_bar/")}
    # The core needs Keras and NumPy.
    required = [
        re.split(r"[^\w-]", x.removeprefix("Requires-Dist: "))[0]
        for x in lines
        if x.startswith("Requires-Dist:") and "extra ==" not in x
    ]
    assert required == ["keras", "numpy"]


@pytest.fixture
def compacted(tmp_path):
    """A folder with a compact model, an input and its output: runs of its
    channels are padded, and scattered ones are moved."""
    gated = keras_bar.gate(pruning.randomize(block_networks.long_stream(True)))
    small = keras_bar.compact(pruning.close_gates(gated, share=0.6))
    kinds = {type(x).__name__ for x in small.operations}
    assert {"Pad", "GetItem", "Take", "Transpose"} <= kinds
    x = pruning.inputs_for(small)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", pruning.outputs_of(small, x)[0])
    small.save(tmp_path / "plain.keras")
    return tmp_path


def test_the_wheel_works_outside_the_checkout(environment, compacted):
    """And plain Keras runs a compact model; no command needs matplotlib."""
    variables = {x: y for x, y in os.environ.items() if x != "PYTHONPATH"}
    python = environment / "bin" / "python"
    assert os.access(environment / "bin" / "keras-bar", os.X_OK)
    shown = run([python, "-I", "-c", SMOKE], cwd=compacted, env=variables)
    # Nothing but the JSON, and the table.
    found, end = json.JSONDecoder().raw_decode(shown)
    first, *_, last = shown[end:].strip().splitlines()
    assert first.split()[0] == "layer" and last.split()[0] == "total"
    assert f"{found['volume']:,}" in last.split()
