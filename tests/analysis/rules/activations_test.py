"""Functions of one number, as layers and as operations."""

import pytest
from keras import layers
from keras import ops

from tests.helpers.one_layer import assert_removable

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
