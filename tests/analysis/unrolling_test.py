"""Layers and models written in Python: what they call becomes visible."""

import inspect
import random
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers import tiny
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import randomize
from tests.helpers.subclassed import Block
from tests.helpers.subclassed import ConvNorm
from tests.helpers.subclassed import Network
from tests.helpers.subclassed import built
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core


def functional():
    """The same network, by hand."""

    def conv_norm(x, name):
        x = layers.Conv2D(
            6, 3, padding="same", use_bias=False, name=f"{name}_conv"
        )(x)
        return layers.BatchNormalization(name=f"{name}_norm")(x)

    inputs = keras.Input((6, 6, 2))
    x = ops.relu(conv_norm(inputs, "stem"))
    for i in range(2):
        y = ops.relu(conv_norm(x, f"block{i}_first"))
        y = layers.Dropout(0.25, seed=3, name=f"block{i}_drop")(y)
        x = ops.relu(x + conv_norm(y, f"block{i}_second"))
    x = layers.Dense(3, name="head")(ops.mean(x, axis=(1, 2)))
    return keras.Model(inputs, x)


def test_costs_and_gates_are_those_of_the_functional_model():
    model, same = built(Network()), functional()
    assert keras_bar.measure_cost(model) == keras_bar.measure_cost(same)
    assert keras_bar.explain(model) == keras_bar.explain(same)
    names = [x.name for x in keras_bar.gate(model).layers if x.weights]
    assert names == [x.name for x in keras_bar.gate(same).layers if x.weights]


@pytest.mark.parametrize("training", [False, True])
def test_the_copy_computes_the_same(training):
    keras.utils.set_random_seed(0)
    model = built(Network())
    copy = copy_of(model)
    x, _ = tiny.data(8)
    # Nothing that follows from the weights is a constant of the copy.
    weights = [2 * w + 0.1 for w in model.get_weights()]
    for either in (model, copy):
        either.set_weights(weights)
    expected = ops.convert_to_numpy(model(x, training=training))
    found = ops.convert_to_numpy(copy(x, training=training))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # Batch statistics and seeds have moved alike.
    for a, b in zip(model.variables, copy.variables, strict=True):
        np.testing.assert_allclose(
            *map(ops.convert_to_numpy, (a, b)), atol=1e-5
        )


def test_a_subclassed_model_is_pruned_to_a_plain_one(tmp_path):
    keras.utils.set_random_seed(0)
    model = built(Network())
    student = tiny.prepare(keras_bar.gate(model, seed=0))
    x, y = tiny.data(64)
    student.fit(
        x,
        y,
        epochs=2,
        batch_size=8,
        verbose=0,
        callbacks=[BudgetRegularizer(0.5, "flops")],
    )
    small = keras_bar.compact(student)
    full = keras_bar.measure_cost(model).flops
    assert keras_bar.measure_cost(small).flops <= full / 2
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras", compile=False)
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(m(x, training=False)) for m in (loaded, small))
    )
    assert type(loaded) is not Network


class Transferred(keras.Model):
    """A frozen network in inference, below a new head: transfer learning."""

    def __init__(self, dropout=0.0):
        super().__init__()
        x = inputs = keras.Input((6, 6, 2))
        x = layers.Conv2D(6, 3, name="first")(x)
        x = ops.relu(layers.BatchNormalization(name="norm")(x))
        x = layers.Dropout(dropout, name="drop")(x)
        x = layers.Conv2D(6, 3, name="second")(x)
        self.base = keras.Model(inputs, x, name="base")
        self.base.trainable = False
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.head = layers.Dense(3, name="head")

    def call(self, x, training=None):
        return self.head(self.pool(self.base(x, training=False)))


def test_a_frozen_network_in_inference():
    """Frozen, it computes the same in any mode, and still does."""
    model = randomize(built(Transferred()))
    gated = keras_bar.gate(model)
    assert keras_bar.explain(gated).gated == ["base_first", "base_second"]
    copy = copy_of(model)
    trainable = [x.path for x in copy.trainable_variables]
    assert trainable == ["head/kernel", "head/bias"]
    norm = next(x for x in trace.trace(model).nodes if x.name == "base_norm")
    assert norm.kwargs["training"] is False
    x, _ = tiny.data(8)
    statistics = copy.get_layer("base_norm").moving_mean
    before = ops.convert_to_numpy(statistics)
    for training in (False, True):
        expected = ops.convert_to_numpy(model(x, training=training))
        found = ops.convert_to_numpy(copy(x, training=training))
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(ops.convert_to_numpy(statistics), before)
    assert_invariants(close_gates(gated))


@pytest.mark.parametrize("name", ["norm", "drop"])
def test_a_network_in_inference_to_which_the_mode_matters(name):
    """A graph would run it in training, too."""
    model = built(Transferred(0.1 if name == "drop" else 0.0))
    model.base.get_layer("norm").trainable = name == "norm"
    why = f"calls 'base' with `training=False`.*'{name}' depends"
    with pytest.raises(ValueError, match=why):
        keras_bar.gate(model)


class Activated(keras.Model):
    """Calls a function of `keras.activations` itself."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.first = layers.Conv2D(6, 3, name="first")
        self.last = layers.Conv2D(3, 1, name="last")

    def call(self, x):
        return self.last(self.function(self.first(x)))


@pytest.mark.parametrize(
    "function", ["relu", "hard_swish", "mish", "sparsemax"]
)
def test_activation_functions(function):
    """Keras runs some of them on numbers alone."""
    model = randomize(built(Activated(getattr(keras.activations, function))))
    before = keras.activations.mish(np.ones(1))
    explanation = keras_bar.explain(model)
    assert keras.activations.mish(np.ones(1)) == before
    if function == "sparsemax":
        why = "no rule knows how Sparsemax treats channels"
        assert why in explanation.ungated["first"]
        return
    assert explanation.gated == ["first"]
    gated = close_gates(keras_bar.gate(model))
    with pytest.raises(ValueError, match="symbolic"):
        keras.activations.mish(gated.inputs[0])
    _, small = assert_invariants(gated)
    assert small.get_layer("first").filters < 6


def test_what_the_user_made_stays_as_it_is():
    keras.backend.clear_session()
    model = built(Network())
    keras_bar.measure_cost(model)
    inside = [x for x in model._flatten_layers() if x is not model]
    assert not any(x._inbound_nodes or x._outbound_nodes for x in inside)
    assert keras.layers.ReLU().name == "re_lu"
    inputs = keras.Input((6, 6, 2))
    assert model.stem.conv(inputs) is model.stem.conv.output


class Joined(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = layers.Conv2D(4, 1, name="conv")

    def call(self, left, right, factor=1.0):
        return self.conv(left) + factor * self.conv(right)


class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.joined = Joined(name="joined")

    def call(self, inputs):
        x = self.joined(inputs["left"], factor=2.0, right=inputs["right"])
        return {"sum": x, "left": inputs["left"]}


def test_dicts_and_several_arguments():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype("float32")
    given = {"left": x, "right": 3 * x}
    model = Two()
    expected = model(given)
    found = copy_of(model)(given)
    assert set(found) == {"sum", "left"}
    for name in found:
        np.testing.assert_allclose(
            *(ops.convert_to_numpy(y[name]) for y in (found, expected)),
            atol=1e-6,
        )


def test_inputs_of_a_model_that_was_never_called():
    model = Network()
    with pytest.raises(ValueError, match="not built: pass `inputs`") as error:
        keras_bar.gate(model)
    assert "Expected" in str(error.value) and "Received" in str(error.value)
    gated = keras_bar.gate(model, inputs=keras.Input((6, 6, 2)), seed=0)
    assert gated.input_shape == (None, 6, 6, 2)


def test_frozen_and_shared_layers():
    class Twice(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.conv = layers.Conv2D(3, 3, padding="same", name="conv")

        def call(self, x):
            return self.conv(self.conv(x))

    inputs = keras.Input((6, 6, 3))
    model = keras.Model(inputs, Twice(name="twice")(inputs))
    model.get_layer("twice").conv.trainable = False
    graph = trace.trace(model)
    assert [node.calls for node in graph.nodes] == [2, 2]
    assert not copy_of(model).trainable_variables


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inputs = keras.Input((6, 6, 2))
        model = keras.Model(inputs, Block(2, name="block")(inputs))
    finally:
        keras.config.set_dtype_policy("float32")
    graph = trace.trace(model)
    assert not any(isinstance(node.op, Block) for node in graph.nodes)
    x, _ = tiny.data(4)
    np.testing.assert_array_equal(
        *(
            ops.convert_to_numpy(ops.cast(m(x), "float32"))
            for m in (copy_of(model), model)
        )
    )


def test_a_lambda_of_operations():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    x = layers.Lambda(lambda x: 2 * ops.relu(x), name="lambda")(x)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="last")(x))
    assert keras_bar.explain(model).gated == ["conv"]


class Named(layers.Layer):
    """Sublayers are named like operations, and like each other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(2, 1, name="conv") for _ in range(2)]
        self.add = layers.Add(name="add")

    def call(self, x, training):
        return self.add([y(x) for y in self.convs]) + 1.0


def test_names_that_clash():
    inputs = keras.Input((6, 6, 2))
    named = Named(name="named")
    model = keras.Model(inputs, named(inputs, training=None))
    names = [node.name for node in trace.trace(model).nodes]
    assert names == ["named_conv", "named_conv_1", "named_add", "named_add_1"]
    assert [x.name for x in named.convs] == ["conv", "conv"]


def test_a_layer_that_has_changed_is_traced_again():
    block = ConvNorm(2, name="block")
    inputs = keras.Input((6, 6, 2))
    model = keras.Model(inputs, block(inputs))
    assert len(trace.trace(model).nodes) == 3
    block.active = False
    assert len(trace.trace(model).nodes) == 2


def test_models_deeper_than_pythons_recursion():
    class Deep(keras.Model):
        def call(self, x):
            for _ in range(400):
                x = ops.relu(x)
            return x

    model = built(Deep())
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 300)
    try:
        assert len(trace.trace(model).nodes) == 400
    finally:
        sys.setrecursionlimit(before)


def test_explain_leaves_random_numbers_alone():
    model = built(Network())
    state = random.getstate()
    keras_bar.explain(model)
    assert random.getstate() == state


@pytest.mark.parametrize(
    "inputs, message",
    [
        ((6, 6, 2), "no symbolic tensors.*keras.Input"),
        (np.zeros((1, 6, 6, 2)), "no symbolic tensors"),
    ],
)
def test_inputs_that_are_none(inputs, message):
    with pytest.raises(ValueError, match=message) as error:
        keras_bar.gate(Network(), inputs=inputs)
    assert "Received" in str(error.value)
    with pytest.raises(ValueError, match="has inputs already"):
        keras_bar.gate(functional(), inputs=keras.Input((6, 6, 2)))
