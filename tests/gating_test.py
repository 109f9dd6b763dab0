"""Where gates are put, and what is said where none is."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import models
from keras_bar.costs import METRICS
from keras_bar.layers import BudgetState
from keras_bar.layers import HardConcreteGate
from tests.helpers.plain import head
from tests.helpers.plain import residual_net
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import difference
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import outputs_of
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


@keras.saving.register_keras_serializable("tests")
class Hiding(layers.Layer):
    """A custom layer with a convolution inside, which cannot be unrolled: it
    differs in training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(3, 1, name="hidden")

    def build(self, input_shape):
        self.conv.build(input_shape)

    def call(self, x, training=False):
        return self.conv(2 * x if training else x)


class Subclassed(keras.Model):
    def call(self, x):
        return x


def plain_net():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="one")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Conv2D(4, 3, name="two")(layers.ReLU()(x))
    return keras.Model(inputs, head(x), name="plain")


def gate_inputs(model):
    """What each gate multiplies: the name of the layer in front of it."""
    return {
        gate.name: gate.input._keras_history.operation.name
        for gate in gates_of(model)
    }


def test_the_gate_is_behind_the_norm_that_alone_reads_the_convolution():
    gated = keras_bar.gate(plain_net())
    assert gate_inputs(gated) == {"one_gate": "norm", "two_gate": "two"}
    (state,) = (x for x in gated.layers if isinstance(x, BudgetState))
    assert state.input._keras_history.operation.name == "two_gate"
    assert gated.name == "plain"


def test_a_norm_beside_another_reader_is_not_waited_for():
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 1, name="one")(inputs)
    y = layers.BatchNormalization()(x)
    model = keras.Model(inputs, head(layers.Add()([x, y])))
    assert gate_inputs(keras_bar.gate(model)) == {"one_gate": "one"}


def test_open_gates_change_nothing():
    model = randomize(residual_net())
    for connectivity in ("mixed", "regular"):
        gated = open_gates(keras_bar.gate(model, connectivity=connectivity))
        assert difference(gated, model, inputs_for(model)) < 1e-6


def test_the_copy_shares_nothing():
    model = randomize(plain_net())
    gated = keras_bar.gate(model)
    x = inputs_for(model)
    before = outputs_of(model, x)
    for weight in gated.weights:
        weight.assign(np.zeros(weight.shape, weight.dtype))
    np.testing.assert_array_equal(outputs_of(model, x)[0], before[0])


def test_seeds():
    def factors(seed):
        gated = keras_bar.gate(plain_net(), seed=seed)
        one, two = gates_of(gated)
        sample = ops.convert_to_numpy(one.sample())
        alphas = (ops.convert_to_numpy(x.log_alpha) for x in (one, two))
        return *alphas, sample

    first, again, other = factors(0), factors(0), factors(1)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)
    assert not np.array_equal(first[0], first[1])


def test_skip():
    gated = keras_bar.gate(plain_net(), skip=["one"])
    assert [x.name for x in gates_of(gated)] == ["two_gate"]
    explanation = keras_bar.explain(gated)
    assert explanation.gated == ["two"]
    assert "skip" in explanation.ungated["one"]
    assert keras_bar.explain(keras_bar.gate(plain_net(), skip="two")).gated == [
        "one"
    ]


def test_explain_before_and_after_gating():
    model = plain_net()
    explanation = keras_bar.explain(model)
    assert explanation.gated == ["one", "two"]
    assert not explanation.ungated and not explanation.boundaries
    assert set(explanation.least) == {*METRICS}
    assert keras_bar.explain(keras_bar.gate(model)) == explanation
    assert str(explanation).startswith("2 layers can be pruned:\n  one\n")


def test_every_convolution_is_accounted_for():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, name="free", padding="same")(inputs)
    x = layers.DepthwiseConv2D(3, name="follows", padding="same")(x)
    x = layers.Conv2D(6, 1, groups=2, name="grouped")(layers.ReLU()(x))
    x = Hiding(name="odd")(x)
    x = layers.Conv2DTranspose(4, 2, name="up")(x)
    x = layers.SeparableConv2D(4, 2, name="separable")(x)
    x = layers.Conv2D(4, 1, name="normed")(x)
    x = layers.LayerNormalization(name="norm")(x)
    frames = layers.Reshape((2, 4, 8, 4))(layers.Conv2D(4, 1, name="in")(x))
    frames = layers.TimeDistributed(
        layers.Conv2D(2, 1, name="each"), name="times"
    )(frames)
    x = layers.Reshape((8, 8, 2))(frames)
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="out")(x))
    explanation = keras_bar.explain(model)
    assert explanation.gated == [
        "free", "up", "separable", "normed", "in", "times_each"
    ]  # fmt: skip
    reasons = explanation.ungated
    assert set(reasons) == {
        "follows", "grouped", "odd", "odd/hidden", "out",
    }  # fmt: skip
    assert "its input" in reasons["follows"]
    assert "'odd' needs all" in reasons["grouped"]
    assert "output" in reasons["out"]
    assert "inside 'odd'" in reasons["odd/hidden"]
    assert "rule knows how Hiding" in reasons["odd"]
    gated = close_gates(keras_bar.gate(randomize(model)))
    assert "over the channels" in keras_bar.explain(gated).boundaries["norm"]
    assert_invariants(gated)


def test_a_depthwise_convolution_follows_gates_or_has_its_own():
    inputs = keras.Input((6, 6, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="first")(inputs)
    x = layers.Conv2D(4, 1, name="conv")(layers.ReLU()(x))
    x = layers.DepthwiseConv2D(3, name="second")(layers.ReLU()(x))
    model = keras.Model(inputs, head(x))
    assert keras_bar.explain(model).gated == ["first", "conv"]
    skipping = keras_bar.gate(model, skip=["conv"])
    assert keras_bar.explain(skipping).gated == ["first", "second"]


def test_gating_twice_adds_only_what_is_missing():
    model = plain_net()
    once = keras_bar.gate(model, skip=["one"])
    twice = keras_bar.gate(once)
    assert [x.name for x in gates_of(twice)] == ["one_gate", "two_gate"]
    assert sum(isinstance(x, BudgetState) for x in twice.layers) == 1
    again = keras_bar.gate(twice)
    assert len(gates_of(again)) == 2


@pytest.mark.parametrize("connectivity", ["mixed", "regular"])
def test_wide_resnet(connectivity):
    model = models.WideResNet(10, 0.25, (8, 8, 3))
    gated = keras_bar.gate(model, connectivity=connectivity)
    explanation = keras_bar.explain(gated)
    assert len(explanation.gated) == 1 + 3 * 3
    assert not explanation.ungated
    per_group = 3 if connectivity == "mixed" else 2
    assert len(gates_of(gated)) == 1 + 3 * per_group


def test_layers_and_variables_keep_their_dtypes():
    policy = keras.DTypePolicy("mixed_bfloat16")
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="one", dtype=policy)(inputs)
    x = layers.Conv2D(4, 3, dtype=policy)(layers.ReLU(dtype=policy)(x))
    x = layers.GlobalAveragePooling2D(dtype=policy)(x)
    model = keras.Model(inputs, layers.Dense(2, dtype=policy)(x))
    gated = keras_bar.gate(model)
    gate = gated.get_layer("one_gate")
    assert gate.output.dtype == "bfloat16"
    assert gate.log_alpha.dtype == "float32"
    assert gated.output.dtype == model.output.dtype == "bfloat16"


def test_a_nested_model_is_gated_inside():
    inner_inputs = keras.Input((6, 6, 3))
    inner = keras.Model(
        inner_inputs, conv_norm_relu(inner_inputs, 4, name="conv"), name="inner"
    )
    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, head(inner(inputs, training=False)))
    gated = keras_bar.gate(randomize(model))
    assert [x.name for x in gates_of(gated)] == ["inner_conv_gate"]
    assert keras_bar.explain(keras_bar.gate(model, skip=[])).gated == [
        "inner_conv"
    ]
    assert_invariants(close_gates(gated))


def test_a_nested_model_whose_name_has_a_point():
    """As those of keras.applications have; PyTorch refuses it in the name of a
    layer with weights."""
    inner_inputs = keras.Input((6, 6, 3))
    inner = keras.Model(
        inner_inputs,
        conv_norm_relu(inner_inputs, 4, name="conv"),
        name="mobilenetv2_1.00_224",
    )
    inputs = keras.Input((6, 6, 3))
    model = randomize(keras.Model(inputs, head(inner(inputs))))
    gated = keras_bar.gate(model)
    (gate,) = gates_of(gated)
    assert gate.name == "mobilenetv2_1_00_224_conv_gate"
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-4


def test_the_reasons_in_an_error_are_few():
    inputs = keras.Input((6, 6, 4))
    x = inputs
    for i in range(8):
        x = layers.Softmax()(layers.Conv2D(4, 1, name=f"conv{i}")(x))
    with pytest.raises(ValueError, match="conv4: .*; and 3 more") as error:
        keras_bar.gate(keras.Model(inputs, head(x)))
    assert "Expected" in str(error.value) and "Received" in str(error.value)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: keras_bar.gate(Subclassed(name="sub")), "subclassed.*'sub'"),
        (
            lambda: keras_bar.gate(keras.Sequential([layers.Dense(2)])),
            "keras.Input.*sequential",
        ),
        (lambda: keras_bar.gate("model.keras"), "'model.keras'"),
        (lambda: keras_bar.gate(plain_net(), skip=["one", "nope"]), "nope"),
        (lambda: keras_bar.gate(plain_net(), skip=5), "name.*skip=5"),
        (lambda: keras_bar.gate(plain_net(), skip=[5]), r"name.*skip=\[5\]"),
        (lambda: keras_bar.gate(plain_net(), seed="a"), "integer.*seed='a'"),
        (lambda: keras_bar.gate(plain_net(), seed=1.5), "integer.*seed=1.5"),
        (lambda: keras_bar.gate(plain_net(), seed=True), "integer.*seed=True"),
        (
            lambda: keras_bar.gate(plain_net(), layer=layers.Dense),
            "HardConcreteGate.*layer=.*Dense",
        ),
        (
            lambda: keras_bar.gate(
                plain_net(), layer=functools.partial(layers.Dense, 3)
            ),
            "HardConcreteGate.*layer=.*Dense",
        ),
        (
            lambda: keras_bar.gate(plain_net(), connectivity="dense"),
            "'mixed', 'regular'.*connectivity='dense'",
        ),
        (
            lambda: keras_bar.gate(plain_net(), skip=["one", "two"]),
            "can be pruned.*plain.*skip",
        ),
        (
            lambda: keras_bar.gate(
                keras.Sequential([keras.Input((4,)), layers.Dense(2)])
            ),
            "no convolution",
        ),
    ],
)
def test_errors_have_three_beats(call, match):
    with pytest.raises(ValueError, match=match) as error:
        call()
    message = str(error.value)
    assert message.index("Expected") < message.index("Received:")
    assert not message.startswith("Expected")


def test_a_gated_model_saves_and_trains(tmp_path):
    gated = keras_bar.gate(residual_net(), seed=0)
    gated.compile("adam", "mse", run_eagerly=True)
    x = inputs_for(gated, batch=8)
    gated.fit(x, np.zeros((8, 2)), batch_size=4, verbose=0)
    gated.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    assert difference(loaded, gated, x) == 0.0
    close_gates(loaded)
    assert_invariants(loaded)
    assert isinstance(loaded.get_layer("stem_gate"), HardConcreteGate)
