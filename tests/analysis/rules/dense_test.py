"""Hidden dense layers have gates, on vectors and on tokens."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar import baselines
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import numbers


def perceptron(**options):
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, activation="relu", name="one", **options)(x)
    x = layers.BatchNormalization(name="norm")(layers.Dense(7, name="two")(x))
    x = layers.Activation("sigmoid")(x)
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def head():
    """Convolutions, flattened for a head of two layers, as in VGG."""
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="conv")(x)
    x = layers.Flatten()(x)
    x = layers.Dropout(0.5)(layers.Dense(8, "relu", name="hidden")(x))
    return keras.Model(inputs, layers.Dense(3, "softmax", name="logits")(x))


def transformer_mlps(norm=layers.LayerNormalization):
    """The blocks of a transformer, without attention, on tokens."""
    x = inputs = keras.Input((5, 6))
    x = layers.Dense(8, name="embed")(x)
    for i in range(2):
        y = layers.Dense(16, "gelu", name=f"expand{i}")(norm()(x))
        y = layers.Dropout(0.1)(layers.Dense(8, name=f"project{i}")(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling1D()(norm()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def convnext():
    """Depthwise convolution, normalization, expansion and projection by dense
    layers, and LayerScale."""
    x = inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 2, strides=2, name="stem")(x)
    x = layers.LayerNormalization()(x)
    for i in range(2):
        y = layers.Conv2D(8, 3, padding="same", groups=8, name=f"depth{i}")(x)
        y = layers.Dense(16, name=f"expand{i}")(layers.LayerNormalization()(y))
        y = layers.Activation("gelu")(y)
        y = layers.Dense(8, name=f"project{i}")(y)
        x = layers.Add()([x, layers.Rescaling([0.5] * 8)(y)])
    x = layers.LayerNormalization()(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


MODELS = {
    "perceptron": (perceptron, ["one", "two"]),
    "head": (head, ["conv", "hidden"]),
    "mlps": (
        transformer_mlps,
        ["embed", "expand0", "project0", "expand1", "project1"],
    ),
    "rms_mlps": (
        lambda: transformer_mlps(layers.RMSNormalization),
        ["embed", "expand0", "project0", "expand1", "project1"],
    ),
    "convnext": (
        convnext,
        [
            "stem",
            *(
                f"{x}{i}"
                for i in (0, 1)
                for x in ("depth", "expand", "project")
            ),
        ],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_hidden_layers(name, tmp_path):
    make, names = MODELS[name]
    gated, hard, small = prune(
        make(),
        recalibrated=True,
        connectivities=BOTH,
        path=tmp_path / "small.keras",
    )
    explanation = keras_bar.explain(gated)
    assert explanation.gated == names
    assert not explanation.ungated
    for x in names:
        if x.startswith(("expand", "hidden", "one", "two")):
            alive = int(gated.get_layer(f"{x}_gate").alive().sum())
            assert small.get_layer(x).units == alive


def test_volume_counts_hidden_units():
    """At every token; logits are no hidden units."""
    assert keras_bar.measure_cost(perceptron()).volume == 8 + 7
    assert keras_bar.measure_cost(head()).volume == 4 * 4 * 5 + 8
    volume = keras_bar.measure_cost(transformer_mlps()).volume
    assert volume == 5 * (8 + 2 * (16 + 8))


def features(added):
    """A network that ends in features: outputs of dense layers, as they are or
    added."""
    x = inputs = keras.Input((6,))
    x = layers.Dense(8, "relu", name="hidden")(x)
    y = layers.Dense(5, name="a")(x)
    if added:
        y = layers.ReLU()(layers.Add()([y, layers.Dense(5, name="b")(x)]))
    return keras.Model(inputs, y)


@pytest.mark.parametrize("added", (False, True))
def test_outputs_of_the_model_are_not_hidden(added):
    explanation = keras_bar.explain(features(added))
    assert explanation.gated == ["hidden"]
    assert not explanation.ungated  # Nobody would prune the logits.
    assert keras_bar.measure_cost(features(added)).volume == 8
    prune(features(added))


def test_skip_and_nothing_to_prune():
    with pytest.raises(ValueError, match="hidden dense layer"):
        keras_bar.gate(perceptron(), skip=["one", "two"])
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with pytest.raises(ValueError, match="no convolution, hidden dense"):
        keras_bar.gate(model)


def test_a_budget_is_followed():
    """As with convolutions, the layers of a multilayer perceptron share it."""
    gated = keras_bar.gate(perceptron(), seed=0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)), rng.integers(0, 3, 64)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    gated.compile("adam", loss)
    regularizer = keras_bar.callbacks.BudgetRegularizer(1 / 2, "params")
    gated.fit(x, y, 8, 3, verbose=0, callbacks=[regularizer])
    full = keras_bar.measure_cost(perceptron()).params
    small = keras_bar.compact(gated)
    assert 0 < keras_bar.measure_cost(small).params <= full / 2


def test_baselines():
    """One-shot pruning, and widening."""
    small = baselines.prune(perceptron(), baselines.weight_magnitude, 0.5)
    assert keras_bar.measure_cost(small).volume <= 15 / 2
    wider = baselines.expand(perceptron(), 30, "volume")
    assert keras_bar.measure_cost(wider).volume == 30


@pytest.mark.core
def test_on_every_backend():
    gated = close_gates(keras_bar.gate(transformer_mlps()))
    small = keras_bar.compact(gated)
    x = np.random.default_rng(0).normal(size=(2, 5, 6)).astype("float32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(small(x)),
        keras.ops.convert_to_numpy(keras_bar.hard_prune(gated)(x)),
        rtol=1e-4,
        atol=1e-5,
    )
    assert numbers(keras_bar.measure_cost(gated)) == numbers(
        keras_bar.measure_cost(small)
    )
