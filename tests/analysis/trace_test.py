import inspect
import sys

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis.replaying import replay
from keras_bar.analysis.trace import call
from keras_bar.analysis.trace import clone
from keras_bar.analysis.trace import copy_state
from keras_bar.analysis.trace import trace
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


class Opaque(keras.Model):
    """A model with a `call` of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")

    def call(self, x):
        return self.dense(x) + 1.0


def copy(model):
    """The model, replayed."""
    graph, clones = trace(model), {}

    def rebuild(node, tensors):
        op = clones.setdefault(id(node.op), clone(node.op, node.name))
        outputs = call(op, node, tensors)
        copy_state(node.op, op)
        return outputs

    return replay(graph, rebuild)


def assert_copies(model):
    randomize(model)
    twin = copy(model)
    assert difference(twin, model, inputs_for(model)) == 0.0
    assert not set(map(id, twin.weights)) & set(map(id, model.weights))
    assert twin.name == model.name
    return twin


def small_block(name, filters=3):
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(filters, 1, name="conv")(inputs)
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, x, name=name)


def distiller():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    loss = keras.distillation.LogitsDistillation()
    return keras.distillation.Distiller(model, model, loss, name="trainer")


def test_nodes_come_after_what_they_read():
    inputs = keras.Input((4,))
    a = layers.Dense(3, name="a")(inputs)
    b = layers.Dense(3, name="b")(a)
    model = keras.Model(inputs, layers.Add(name="sum")([a, b]))
    graph = trace(model)
    assert [node.name for node in graph.nodes] == ["a", "b", "sum"]
    total = graph.nodes[-1]
    assert total.inputs == [graph.nodes[0].output, graph.nodes[1].output]
    assert graph.nodes[0].output.consumers == [graph.nodes[1], total]
    assert graph.outputs == [total.output]
    assert graph.inputs[0].consumers == [graph.nodes[0]]


def test_sequential():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="a")])
    assert [node.name for node in trace(model).nodes] == ["a"]
    assert_copies(model)


def test_sequential_built_by_a_call():
    model = keras.Sequential([layers.Dense(3, name="a")])
    model(np.ones((1, 4), "float32"))
    assert_copies(model)


def test_nested_models_are_unrolled():
    inputs = keras.Input((6, 6, 2))
    outer = small_block("inner")(inputs)
    middle = keras.Sequential([keras.Input((6, 6, 3)), layers.ReLU(name="r")])
    model = keras.Model(inputs, layers.Flatten(name="flat")(middle(outer)))
    names = [node.name for node in trace(model).nodes]
    assert names == ["inner_conv", "inner_norm", f"{middle.name}_r", "flat"]
    assert_copies(model)


def test_a_nested_model_in_inference_mode_stays_so():
    inputs = keras.Input((6, 6, 2))
    frozen = small_block("frozen")(inputs, training=False)
    model = keras.Model(inputs, small_block("free", 2)(frozen[..., :2]))
    norms = {
        node.name: node.kwargs.get("training")
        for node in trace(model).nodes
        if "norm" in node.name
    }
    assert norms == {"frozen_norm": False, "free_norm": None}
    x = np.random.default_rng(0).normal(size=(4, 6, 6, 2)).astype("float32")
    twin = assert_copies(model)
    before = ops.convert_to_numpy(model(x, training=True))
    np.testing.assert_allclose(
        ops.convert_to_numpy(twin(x, training=True)), before, atol=1e-6
    )


def test_what_a_layer_is_told_outweighs_its_model():
    inner_inputs = keras.Input((4,))
    x = layers.Dropout(0.5, name="on")(inner_inputs, training=True)
    inner = keras.Model(inner_inputs, layers.Dropout(0.5, name="off")(x))
    inputs = keras.Input((4,))
    graph = trace(keras.Model(inputs, inner(inputs, training=False)))
    told = [node.kwargs["training"] for node in graph.nodes]
    assert told == [True, False]


def test_shared_layers_are_twins():
    shared = small_block("shared")
    a, b = keras.Input((6, 6, 2)), keras.Input((6, 6, 2))
    model = keras.Model([a, b], layers.Add()([shared(a), shared(b)]))
    graph = trace(model)
    convs = [x for x in graph.nodes if isinstance(x.op, layers.Conv2D)]
    assert [x.name for x in convs] == ["shared_conv", "shared_conv_1"]
    assert convs[0].calls == 2
    assert convs[0].shared_calls is convs[1].shared_calls == convs
    twin = assert_copies(model)
    assert len(twin.weights) == len(model.weights)


def test_structures_and_outputs_in_the_middle():
    inputs = {
        "x": keras.Input((4,), name="x"),
        "y": keras.Input((4,), name="y"),
    }
    middle = layers.Dense(4, name="middle")(inputs["x"])
    total = layers.Add(name="total")([middle, inputs["y"]])
    model = keras.Model(inputs, {"total": total, "parts": [middle, total]})
    twin = assert_copies(model)
    outputs = twin(inputs_for(model))
    assert set(outputs) == {"total", "parts"}
    assert len(outputs["parts"]) == 2
    assert set(twin.input) == {"x", "y"}


def test_operations_keep_their_arguments():
    inputs = keras.Input((6, 6, 4))
    x = ops.clip(inputs * 2.0, -1.0, x_max=0.5)
    x = ops.concatenate([x, 1.0 - x], axis=-1)
    x = ops.mean(ops.relu(x), axis=(1, 2), keepdims=True)
    assert_copies(keras.Model(inputs, ops.reshape(x, (-1, 8))))


def test_a_lambda_is_copied():
    inputs = keras.Input((4,))
    assert_copies(keras.Model(inputs, layers.Lambda(lambda x: 2 * x)(inputs)))


def test_an_adapted_normalization_is_copied():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, (50, 4)))
    inputs = keras.Input((4,))
    assert_copies(keras.Model(inputs, layer(inputs)))


def test_trainability_is_copied():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(2, name="a")(inputs))
    model.get_layer("a").trainable = False
    assert not copy(model).trainable_weights


def test_names_inside_of_nested_models_give_way():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(2, 1, name="inner_conv")(small_block("inner")(inputs))
    names = [x.name for x in trace(keras.Model(inputs, x)).nodes]
    assert names == ["inner_conv_1", "inner_norm", "inner_conv"]


def test_operations_need_no_configuration():
    """Keras has none where an argument is one of NumPy's integers."""
    inputs = keras.Input((8, 8, 4))
    x = ops.reshape(inputs, [-1, np.int64(64), 4])
    model = keras.Model(inputs, ops.relu(x))
    twin = assert_copies(model)
    used = {id(x) for x in model.operations} & {id(x) for x in twin.operations}
    assert not used  # Or the old model would keep the new one in memory.


def test_nested_models_have_the_sizes_they_are_called_with():
    inner = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, name="conv")(inner)
    x = layers.BatchNormalization()(x)
    x = ops.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
    backbone = keras.Model(inner, layers.MaxPooling2D()(x), name="backbone")
    large, small = keras.Input((15, 15, 3)), keras.Input((7, 7, 3))
    model = keras.Model([large, small], [backbone(large), backbone(small)])
    shapes = [x.output.shape[1] for x in trace(model).nodes]
    assert sorted(shapes) == sorted([7, 7, 9, 4, 3, 3, 5, 2])


@keras.saving.register_keras_serializable("tests")
class Unbuilt(layers.Layer):
    """Every one that is made has one weight more than that before."""

    made = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        Unbuilt.made += 1
        self.count = Unbuilt.made

    def build(self, input_shape):
        for i in range(self.count):
            self.add_weight(shape=(i + 1,), name=f"w{i}")

    def call(self, x):
        return x


class Function(layers.Layer):
    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, x):
        return self.scale * self.function(x)


@pytest.mark.parametrize(
    "make", [Unbuilt, lambda **kwargs: Function(ops.relu, **kwargs)]
)
def test_errors_name_the_layer_that_cannot_be_rebuilt(make):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, make(name="odd")(inputs))
    with pytest.raises(ValueError, match="'odd' cannot.*Expected.*Received"):
        copy(model)


class Talkative(layers.Layer):
    """`get_config` has entries that `__init__` does not accept."""

    def __init__(self, size):
        super().__init__(name=f"talkative_{size}")
        self.size = size

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(self.size,), initializer="ones")

    def call(self, x):
        return x * self.scale

    def get_config(self):
        return {**super().get_config(), "size": self.size, "made_of": "clay"}


def test_entries_that_a_layer_does_not_accept_are_left_out():
    inputs = keras.Input((4,))
    assert_copies(keras.Model(inputs, Talkative(4)(inputs)))


def test_fresh_names():
    inputs = keras.Input((4,), name="given")
    x = layers.Dense(2, name="dense")(inputs)
    graph = trace(keras.Model(inputs, x))
    assert graph.fresh_name("new") == "new"
    assert graph.fresh_name("new") == "new_1"
    assert graph.fresh_name("dense") == "dense_1"
    assert graph.fresh_name("given") == "given_1"


def test_a_subclassed_layer_inside_shows_its_layers():
    inputs = keras.Input((4,))
    graph = trace(keras.Model(inputs, Opaque(name="opaque")(inputs)))
    names = [node.name for node in graph.nodes]
    assert names == ["opaque_dense", "opaque_add"]


@pytest.mark.parametrize(
    ("model", "received"),
    [
        (lambda: Opaque(name="opaque"), "opaque"),
        (lambda: keras.Sequential([layers.Dense(2)], name="seq"), "seq"),
        (lambda: "resnet", "resnet"),
        (lambda: distiller(), "'trainer'"),
    ],
)
def test_models_without_a_graph(model, received):
    with pytest.raises(ValueError, match=f"Expected.*Received.*{received}"):
        trace(model())


@pytest.mark.parametrize(
    "function",
    [
        keras_bar.gate,
        keras_bar.hard_prune,
        keras_bar.compact,
        keras_bar.measure_cost,
        keras_bar.explain,
    ],
)
def test_a_distiller_is_told_from_its_student(function):
    with pytest.raises(ValueError, match="pass `distiller.student`"):
        function(distiller())


def test_a_model_deeper_than_pythons_recursion():
    """Gates and mixed additions deepen models that are just within it."""
    x = inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, name="conv")(x)
    for _ in range(400):
        x = layers.ReLU()(x)
    model = keras.Model(inputs, layers.Conv2D(2, 1)(x))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 300)
    try:
        with pytest.warns(UserWarning, match="setrecursionlimit.20000."):
            gated = keras_bar.gate(model)
    finally:
        sys.setrecursionlimit(before)
    assert len(gated.operations) == len(model.operations) + 2


def test_sizes_that_einsum_dense_forgets():
    inputs = keras.Input((9, 8))
    x = layers.EinsumDense("abc,cde->abde", (None, 2, 3))(inputs)
    assert x.shape[1] is None
    graph = trace(keras.Model(inputs, x))
    assert graph.outputs[0].shape == (None, 9, 2, 3)
