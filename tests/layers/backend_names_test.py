"""Only functions of arrays are part of a graph, and of files."""

import json
import zipfile

import keras
import pytest

import keras_bar
from keras_bar.layers import backend_names
from keras_bar.layers.backend_function import BackendFunction
from tests.helpers.backend_functions import BACKEND
from tests.helpers.backend_functions import FUNCTIONS
from tests.helpers.backend_functions import network

pytestmark = pytest.mark.core
dispatches = pytest.mark.skipif(
    BACKEND == "jax", reason="JAX has no dispatch for other types"
)

REFUSED = (
    "tensorflow.io.write_file",
    "tensorflow.load_op_library",
    "tensorflow.py_function",
    "tensorflow.nn.relu.__call__",
    "torch.load",
    "torch.nn.functional.torch.load",
    "torch.hub.load",
    "os.system",
    "system",
    "jax.numpy.load",
)


@pytest.mark.parametrize("name", REFUSED)
def test_only_functions_of_arrays_are_called(name):
    with pytest.raises(ValueError, match="cannot contain") as error:
        BackendFunction(name, [{"tensor": 0}])
    assert "Expected" in str(error.value) and "Received" in str(error.value)


def test_no_function_of_another_backend_is_called():
    others = {"tensorflow", "torch"} - {BACKEND}
    for other in others:
        with pytest.raises(ValueError, match="for the backend"):
            BackendFunction(f"{other}.abs", [{"tensor": 0}])


@dispatches
def test_a_file_cannot_name_another_function(tmp_path):
    gated = keras_bar.gate(network(FUNCTIONS["observed"]["erf"]))
    gated.save(tmp_path / "gated.keras")
    (function,) = (
        x.function for x in gated.operations if isinstance(x, BackendFunction)
    )
    with zipfile.ZipFile(tmp_path / "gated.keras") as archive:
        members = {x: archive.read(x) for x in archive.namelist()}
    config = members["config.json"].decode()
    assert json.dumps(function) in config
    for name in REFUSED[:1] + REFUSED[4:5]:
        changed = config.replace(json.dumps(function), json.dumps(name))
        with zipfile.ZipFile(tmp_path / "changed.keras", "w") as archive:
            for member, content in members.items():
                is_config = member == "config.json"
                archive.writestr(member, changed if is_config else content)
        with pytest.raises(Exception, match="cannot contain this function"):
            keras.models.load_model(tmp_path / "changed.keras")


@dispatches
def test_every_listed_function_exists():
    listed = {
        name
        for tables in (backend_names.MOVING, backend_names.MULTIPLYING)
        for names in tables[BACKEND].values()
        for name in names.split()
    }
    assert listed == {x.rpartition(".")[-1] for x in backend_names.known()}


BEGINNINGS = (
    *("conv1d", "conv2d", "conv3d", "conv_", "convolution", "depthwise"),
    *("separable", "atrous", "einsum", "mat", "tensordot", "bilinear"),
)
ENDS = ("mm", "matmul", "attention")


@dispatches
def test_functions_that_multiply_matrices_are_not_free():
    for name in backend_names.known():
        leaf = name.rpartition(".")[-1]
        if leaf.startswith(BEGINNINGS) or leaf.endswith(ENDS):
            assert backend_names.may_multiply(name), name
