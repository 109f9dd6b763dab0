"""Layers that call functions of TensorFlow or PyTorch, not of Keras."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from keras_bar.layers.backend_function import BackendFunction
from tests.helpers import pruning
from tests.helpers.backend_functions import BACKEND
from tests.helpers.backend_functions import FUNCTIONS
from tests.helpers.backend_functions import Between
from tests.helpers.backend_functions import network
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core
dispatches = pytest.mark.skipif(
    BACKEND == "jax", reason="JAX has no dispatch for other types"
)


KINDS = ("translated", "observed")
CASES = [(kind, name) for kind in KINDS for name in FUNCTIONS.get(kind, ())]


def functions_in(model):
    return [
        x.function for x in model.operations if isinstance(x, BackendFunction)
    ]


@dispatches
@pytest.mark.parametrize("kind, name", CASES)
def test_functions_are_part_of_the_graph(kind, name, tmp_path):
    model = network(FUNCTIONS[kind][name])
    gated = keras_bar.gate(model, seed=0)
    assert not keras_bar.explain(gated).boundaries
    names = {x.name for x in pruning.gates_of(gated)}
    assert len(names) == 2, names  # The third gives the output.
    assert bool(functions_in(gated)) == (kind == "observed")
    copy, x = copy_of(model), pruning.inputs_for(model)
    for training in (False, True):
        np.testing.assert_allclose(
            *(
                ops.convert_to_numpy(m(x, training=training))
                for m in (copy, model)
            ),
            atol=1e-5,
        )
    gated.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    assert pruning.difference(loaded, gated, x) == 0
    pruning.recalibrate(pruning.close_gates(loaded))
    hard, small = pruning.assert_invariants(
        loaded, pruning.BOTH, path=tmp_path / "small.keras"
    )
    assert small.count_params() < hard.count_params()
    assert functions_in(small) == functions_in(gated)
    same = keras.models.load_model(tmp_path / "small.keras")
    assert pruning.difference(same, small, x) == 0


@dispatches
def test_a_gated_model_with_functions_is_trained():
    gated = keras_bar.gate(network(FUNCTIONS["observed"]["aligned"]), seed=0)
    gated.compile("sgd", "mse")
    kernel = gated.get_layer("between_first").kernel
    before = np.array(ops.convert_to_numpy(kernel))
    x = pruning.inputs_for(gated, batch=8)
    gated.fit(x, np.zeros((8, 7, 7, 3), "float32"), verbose=0)
    assert np.all(before != ops.convert_to_numpy(kernel))


@dispatches
def test_a_function_of_all_channels_is_a_boundary_around_it_alone():
    model = network(FUNCTIONS["whole"])
    found = keras_bar.explain(model)
    assert found.gated == ["between_second"]
    reason = found.ungated["between_first"]
    assert f"knows how {BACKEND}." in reason
    assert "normalize" in reason and "depend on each other" in reason
    assert not keras_bar.measure_cost(model).uncounted
    gated = pruning.recalibrate(pruning.close_gates(keras_bar.gate(model)))
    pruning.assert_invariants(gated)


class Convolving(Between):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, 4, 4), name="kernel")

    def call(self, x, training=None):
        x = self.function(self.first(x), self.kernel)
        return self.third(ops.relu(self.second(x)))


@dispatches
def test_a_convolution_by_a_function_is_not_free():
    model = network(FUNCTIONS["convolve"], Convolving)
    cost = keras_bar.measure_cost(model)
    ((_, kind),) = cost.uncounted.items()
    assert kind.startswith(BACKEND) and kind.endswith("conv2d")
    assert "Not counted in volume and FLOPs" in str(cost)
    gated = pruning.close_gates(keras_bar.gate(model))
    _, small = pruning.assert_invariants(gated)
    assert list(keras_bar.measure_cost(small).uncounted.values()) == [kind]


class InWindows(Between):
    """A convolution of windows of the image, put beside the samples."""

    def call(self, x, training=None):
        x = self.norm(self.first(x), training=training)
        return self.third(self.function(x, self.second))


@dispatches
def test_convolutions_of_windows_count_once_per_window():
    model = network(FUNCTIONS["windows"], InWindows)
    rows = {x.name: x for x in keras_bar.measure_cost(model).layers}
    windows, height, width = (4, 1, 1) if BACKEND == "tensorflow" else (2, 1, 4)
    weights = 3 * 3 * 4 * 4
    assert rows["between_second"].volume == windows * height * width * 4
    assert (
        rows["between_second"].flops == 2 * windows * height * width * weights
    )
    if BACKEND == "tensorflow":  # One function, which keeps channels apart.
        gated = keras_bar.gate(model)
        pruning.assert_invariants(pruning.close_gates(gated))


@dispatches
def test_a_lambda_shows_its_functions():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(4, 1, name="first")(inputs)
    x = layers.Lambda(FUNCTIONS["observed"]["aligned"])(x)
    model = keras.Model(inputs, layers.Conv2D(3, 1, name="second")(x))
    gated = keras_bar.gate(pruning.randomize(model))
    assert len(functions_in(gated)) == 1
    pruning.assert_invariants(pruning.close_gates(gated))


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch's functions")
def test_functions_that_change_their_input():
    from torch.nn import functional as F

    def unseen(x):
        return F.hardtanh(x, -0.5, 0.5, True)

    def seen(x):
        return ops.add(F.hardtanh(x, inplace=True), x)

    model = network(unseen)
    assert keras_bar.explain(model).gated[0] == "between_first"
    x = pruning.inputs_for(model)
    assert pruning.difference(copy_of(model), model, x) < 1e-6
    (node,) = trace.trace(network(seen)).nodes
    assert "computes something else" in node.opaque


class Reading(Between):
    """Calls a function on the weight of a sublayer."""

    def call(self, x, training=None):
        return self.function(self.first(x), self.first.bias)


@dispatches
@pytest.mark.parametrize(
    "function, kind, reason",
    [
        ("random", Between, "which is none of the functions of arrays"),
        ("large", Between, "with a constant of 144 numbers"),
        ("function", Between, "print>, which JSON cannot hold"),
        ("pair", Reading, "with a variable"),
    ],
)
def test_what_a_file_cannot_hold_stays_whole(function, kind, reason):
    inputs = keras.Input((6, 6, 2))
    layer = kind(FUNCTIONS[function], name="between")
    layer.compute_output_spec = lambda x, **_: keras.KerasTensor(
        (None, 4, 4, 3), x.dtype
    )
    for sublayer in (layer.first, layer.norm, layer.second, layer.third):
        sublayer.build((None, 6, 6, 2 if sublayer is layer.first else 4))
    layer.built = True
    graph = trace.trace(keras.Model(inputs, layer(inputs)))
    assert reason in graph.nodes[-1].opaque


@pytest.mark.skipif(BACKEND != "jax", reason="has dispatch for other types")
def test_jax_functions_leave_a_layer_whole():
    import jax

    model = network(jax.nn.relu)
    (node,) = trace.trace(model).nodes
    assert "does not run on symbolic tensors" in node.opaque
    found = keras_bar.explain(model)
    assert not found.gated and found.uncounted


def test_nothing_changes_outside_of_an_unrolling():
    if FUNCTIONS:
        keras_bar.explain(network(FUNCTIONS["observed"]["aligned"]))
        with pytest.raises((TypeError, ValueError, AttributeError)):
            FUNCTIONS["observed"]["erf"](keras.Input((6, 6, 2)))
    assert not hasattr(keras.KerasTensor, "__torch_function__")
