"""Functions of one number, as layers and as operations."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis.rules.activations import is_elementwise
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune

# Groups of functions of one number.
ELEMENTWISE = {
    "layers": [
        lambda: layers.ReLU(),
        lambda: layers.ReLU(max_value=6.0, negative_slope=0.1),
        lambda: layers.ReLU(threshold=0.5),
        lambda: layers.LeakyReLU(),
        lambda: layers.ELU(),
        lambda: layers.Activation(layers.LeakyReLU()),
        lambda: layers.Activation(ops.silu),
    ],
    "operations": [
        lambda: lambda x: ops.relu6(2.0 * x - 1.0) / 3.0,
        lambda: lambda x: ops.maximum(0.1, 1.0 - x) ** 2,
        lambda: ops.gelu,
        lambda: lambda x: ops.clip(x, -0.5, 0.5),
        lambda: lambda x: ops.cast(x, "float32"),
    ],
    **{
        names: [
            lambda name=name: layers.Activation(name) for name in names.split()
        ]
        for names in (
            "celu elu exponential gelu hard_shrink hard_sigmoid hard_silu "
            "hard_tanh leaky_relu linear log_sigmoid mish relu",
            "relu6 selu sigmoid silu soft_shrink softplus softsign "
            "sparse_plus sparse_sigmoid squareplus tanh tanh_shrink",
        )
    },
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    def apply(x):
        return layers.Concatenate()([make()(x) for make in ELEMENTWISE[name]])

    assert_removable(apply, zero=False)


def quick_gelu(x):
    return x * ops.sigmoid(1.702 * x)


@pytest.mark.filterwarnings("ignore:.*lambda")
@pytest.mark.parametrize(
    "function",
    [quick_gelu, lambda x: ops.gelu(x, approximate=True)],
    ids=["function", "lambda"],
)
def test_an_activation_by_a_function_without_a_name(function, tmp_path):
    """Keras could not load it: it becomes the operations that it calls."""
    model = model_with(lambda x: layers.Activation(function)(x), zero=True)
    _, _, small = prune(model, path=tmp_path / "small.keras")
    assert filters_of(small) < CHANNELS
    assert not keras_bar.explain(small).boundaries


@keras.saving.register_keras_serializable("tests")
def rough_gelu(x):
    return ops.gelu(x, approximate=True)


@keras.saving.register_keras_serializable("tests")
def centered(x):
    return x - ops.mean(x, axis=-1, keepdims=True)


@keras.saving.register_keras_serializable("tests")
def graded(x):
    """Maps numbers one by one, but not alike."""
    return x * ops.arange(x.shape[-1], dtype=x.dtype)


@pytest.mark.parametrize("function", [rough_gelu, centered, graded])
def test_functions_of_users_are_observed(function):
    def layer(x):
        return layers.Conv2D(4, 1, activation=function, name="own")(x)

    gated, _, small = prune(model_with(layer, zero=True))
    whole = filters_of(small, "own") == 4
    assert whole == (function is not rough_gelu)
    assert is_elementwise(function) == (function is rough_gelu)
