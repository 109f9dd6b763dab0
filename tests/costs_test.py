import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import models
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.analysis.trace import trace
from keras_bar.costs import METRICS
from keras_bar.costs import CostModel
from tests.helpers import tiny
from tests.helpers.gradients import gradient
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import numbers
from tests.helpers.pruning import open_gates

core = pytest.mark.core


def cost_model(model):
    return CostModel(ChannelAnalysis(trace(model)))


def residual_net(size=6, **kwargs):
    """Stem and two residual blocks, the second behind a batch normalization
    that turns dead channels into other constants."""
    inputs = keras.Input((size, size, 3))
    x = conv_norm_relu(inputs, 5)
    x = layers.Add()([x, conv_norm_relu(x, 5)])
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(5, 3, padding="same", use_bias=False)(y)
    y = layers.Conv2D(5, 1)(layers.ReLU()(y))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.fixture(scope="module")
def residual():
    """The cost model of the gated network of residual blocks."""
    return cost_model(keras_bar.gate(residual_net()))


def test_wide_resnet_costs_what_the_supplement_says():
    cost = keras_bar.measure_cost(models.WideResNet())
    convolutions = [x for x in cost.layers if x.kind == "Conv2D"]
    assert cost.volume == 3_112_960
    assert sum(x.flops for x in convolutions) == 15_087_796_224
    # 3,112,960 / 1.97e5 and / 3.93e5 are the dagger rows of the tables.
    assert cost.volume / 1.97e5 == pytest.approx(15.8, abs=0.05)
    assert cost.volume / 3.93e5 == pytest.approx(7.9, abs=0.05)


@pytest.mark.parametrize(("narrow", "factor"), [(8, 63.974), (16, 255.775)])
def test_wide_resnet_narrowed_uniformly(narrow, factor):
    cost = keras_bar.measure_cost(models.WideResNet(narrow=narrow))
    flops = sum(x.flops for x in cost.layers if x.kind == "Conv2D")
    assert cost.volume * narrow == 3_112_960
    assert 15_087_796_224 / flops == pytest.approx(factor, abs=5e-4)


def test_resnet50_costs_what_the_supplement_says():
    cost = keras_bar.measure_cost(models.ResNet50())
    assert cost.volume == 3_629_056 == 2 * 1_814_528
    assert "stem_conv" in {x.name for x in cost.layers if x.flops}


def odd_net():
    """What TensorFlow counts besides: it counts grouped convolutions not at
    all, and transposed ones wrong."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(8, 5, strides=2, padding="same")(inputs)
    x = layers.SeparableConv2D(6, 3, depth_multiplier=2)(x)
    x = layers.DepthwiseConv2D(2, depth_multiplier=3, strides=2)(x)
    x = layers.Dense(5)(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def siamese_net():
    """One convolution, called twice."""
    conv = layers.Conv2D(4, 3)
    inputs = keras.Input((8, 8, 3))
    x = layers.Subtract()([conv(inputs), conv(layers.ReLU()(inputs))])
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="counts with TensorFlow"
)
@pytest.mark.parametrize(
    "model",
    [
        lambda: models.WideResNet(10, 0.5, (16, 16, 3)),
        lambda: models.ResNet50((64, 64, 3), narrow=8),
        lambda: keras.applications.MobileNetV2((64, 64, 3), 0.35, weights=None),
        lambda: keras.applications.VGG16(
            weights=None, input_shape=(32, 32, 3), include_top=False
        ),
        odd_net,
        siamese_net,
    ],
)
def test_flops_against_the_profiler_of_tensorflow(model):
    model = model()
    assert keras_bar.measure_cost(model).flops == profiled_flops(model)


def profiled_flops(model):
    """FLOPs of convolutions and matrix products, counted by TensorFlow in the
    frozen graph."""
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    @tf.function
    def run(x):
        return model(x, training=False)

    spec = tf.TensorSpec((1, *model.input_shape[1:]), tf.float32)
    frozen = convert_to_constants.convert_variables_to_constants_v2(
        run.get_concrete_function(spec)
    )
    profiler = tf.compat.v1.profiler
    builder = profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(frozen.graph.as_graph_def(), name="")
        node = profiler.profile(graph, cmd="op", options=options)
    total = 0
    while node is not None:
        if "Conv" in node.name or "MatMul" in node.name:
            total += node.float_ops
        node = node.children[0] if node.children else None
    return total


@core
@pytest.mark.parametrize(
    ("rank", "layer", "volume", "flops"),
    [
        (1, lambda: layers.Conv1D(4, 3), 6 * 4, 2 * 3 * 2 * 6 * 4),
        (3, lambda: layers.Conv3D(4, 2), 7**3 * 4, 2 * 8 * 2 * 7**3 * 4),
        (
            2,
            lambda: layers.Conv2D(4, 3, groups=2),
            36 * 4,
            2 * 9 * 1 * 36 * 4,
        ),
        (
            1,
            lambda: layers.Conv1DTranspose(4, 3, strides=2),
            17 * 4,
            2 * 3 * 2 * 8 * 4,
        ),
        (
            1,
            lambda: layers.SeparableConv1D(5, 3),
            6 * 5,
            2 * 3 * 2 * 6 + 2 * 2 * 5 * 6,
        ),
        (
            1,
            lambda: layers.DepthwiseConv1D(3, depth_multiplier=2),
            6 * 4,
            2 * 3 * 6 * 4,
        ),
    ],
)
def test_one_layer_by_hand(rank, layer, volume, flops):
    inputs = keras.Input((8,) * rank + (2,))
    model = keras.Model(inputs, layer()(inputs))
    cost = keras_bar.measure_cost(model)
    assert (cost.volume, cost.flops) == (volume, flops)
    assert cost.params == model.count_params()


@core
def test_the_cost_of_an_ungated_model():
    model = residual_net()
    cost = keras_bar.measure_cost(model)
    assert cost.regular is None
    assert cost.params == model.count_params()
    assert cost.volume == 4 * 36 * 5
    assert sum(x.volume for x in cost.layers) == cost.volume
    assert sum(x.flops for x in cost.layers) == cost.flops
    assert sum(x.params for x in cost.layers) == cost.params


@core
def test_wide_open_gates_cost_nothing():
    model = residual_net()
    gated = open_gates(keras_bar.gate(model))
    cost = keras_bar.measure_cost(gated)
    assert numbers(cost) == numbers(keras_bar.measure_cost(model))
    assert numbers(cost.regular) == numbers(cost)
    assert cost_model(gated).full == numbers(cost)


@core
def test_str_is_a_table():
    gated = close_gates(keras_bar.gate(residual_net()))
    cost = keras_bar.measure_cost(gated)
    lines = str(cost).splitlines()
    assert lines[0].split() == ["layer", "type", "channels", *METRICS]
    assert lines[-1].split() == [
        "total",
        *(f"{x:,}" for x in numbers(cost).values()),
    ]
    assert "of 5" in str(cost)


@core
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("metric", METRICS)
def test_soft_at_zero_and_one_is_hard(residual, metric, seed):
    model = residual
    rng = np.random.default_rng(seed)
    masks = {g: rng.random(g.log_alpha.shape[0]) > 0.4 for g in model.gates}
    if seed == 2:
        masks[model.gates[1]][:] = False
    tensors = {
        gate: ops.convert_to_tensor(mask.astype("float32"))
        for gate, mask in masks.items()
    }
    soft = float(ops.convert_to_numpy(model.soft(metric, tensors)))
    assert soft == pytest.approx(model.hard(masks)[metric], rel=1e-5)


@core
def test_soft_volume_by_hand():
    """The sum over layers of A_l sum p_i (supplement, eq. 6), of what is left
    when a branch without channels drops out."""
    inputs = keras.Input((6, 6, 3))
    x = conv_norm_relu(inputs, 5)
    y = conv_norm_relu(conv_norm_relu(x, 4), 5)
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    model = cost_model(keras_bar.gate(keras.Model(inputs, layers.Dense(2)(x))))
    rng = np.random.default_rng(0)
    p = [rng.uniform(0.0, 0.6, size).astype("float32") for size in (5, 4, 5)]
    tensors = {
        gate: ops.convert_to_tensor(x)
        for gate, x in zip(model.gates, p, strict=True)
    }
    some = [1 - np.prod(1 - x) for x in p]
    # No gate counts twice: what is in a gate needs not ask whether any is.
    volume = 36 * (
        p[0].sum()
        + p[1].sum() * some[0] * some[2]
        + p[2].sum() * some[1] * some[0]
    )
    soft = float(ops.convert_to_numpy(model.soft("volume", tensors)))
    assert soft == pytest.approx(volume, rel=1e-5)


@core
@pytest.mark.parametrize("metric", METRICS)
def test_gradient_is_the_finite_difference(residual, metric):
    model = residual
    sizes = [gate.log_alpha.shape[0] for gate in model.gates]
    p = np.random.default_rng(0).uniform(0.2, 0.8, sum(sizes))

    def soft(p):
        parts = ops.split(p, np.cumsum(sizes)[:-1].tolist())
        return model.soft(metric, dict(zip(model.gates, parts, strict=True)))

    slopes = gradient(soft, p)
    step = 0.05
    for i in range(0, len(p), 3):
        ends = []
        for sign in (1, -1):
            moved = p.astype("float32")
            moved[i] += sign * step
            ends.append(float(ops.convert_to_numpy(soft(moved))))
        expected = (ends[0] - ends[1]) / (2 * step)
        assert slopes[i] == pytest.approx(expected, rel=2e-2, abs=1e-2)


@core
@pytest.mark.parametrize("metric", METRICS)
def test_many_vectors_at_once(residual, metric):
    model = residual
    rng = np.random.default_rng(0)
    vectors = {
        g: ops.convert_to_tensor(rng.random((2, 3, g.channels)), "float32")
        for g in model.gates
    }
    found = ops.convert_to_numpy(model.soft(metric, vectors))
    assert found.shape == (2, 3)
    for place in np.ndindex(2, 3):
        one = model.soft(metric, {g: x[place] for g, x in vectors.items()})
        assert found[place] == pytest.approx(float(one), rel=1e-5)


@core
@pytest.mark.parametrize("metric", METRICS)
def test_marginal_costs_in_the_full_network_are_what_closing_saves(metric):
    model = cost_model(keras_bar.gate(tiny.network()))
    cost, marginal = model.marginal_costs(metric, 1.0)
    assert cost == model.full[metric]
    assert marginal == pytest.approx(model.savings(metric))


@core
@pytest.mark.parametrize("metric", METRICS)
def test_marginal_costs_are_the_slopes_of_the_cost(metric):
    model = cost_model(keras_bar.gate(tiny.network(width=6)))
    p = np.array([1.0] + 5 * [0.7], "float32")

    def soft(p):
        parts = dict(zip(model.gates, ops.split(p, 2), strict=True))
        return model.soft(metric, parts)

    together = np.tile(p, 2)
    cost, marginal = model.marginal_costs(metric, 0.7)
    assert cost == pytest.approx(float(soft(ops.convert_to_tensor(together))))
    slopes = np.reshape(gradient(soft, together), (2, 6))
    expected = np.mean(slopes[:, 1:], axis=1)  # But for what is certain.
    assert list(marginal.values()) == pytest.approx(expected, rel=1e-3)


@core
def test_marginal_costs_by_hand():
    """In a chain a channel is read by what is open behind it."""
    x = inputs = keras.Input((6, 6, 2))
    for name, width in (("a", 8), ("b", 4), ("c", 2)):
        x = layers.Conv2D(width, 3, padding="same", name=name)(x)
        x = layers.ReLU()(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    model = cost_model(keras_bar.gate(keras.Model(inputs, outputs)))
    q, taps = 0.25, 2 * 36 * 9
    a, b, c = 1 + 7 * q, 1 + 3 * q, 1 + q
    cost, marginal = model.marginal_costs("flops", q)
    assert cost == pytest.approx(taps * (2 * a + a * b + b * c) + 2 * 3 * c)
    expected = [taps * (2 + b), taps * (a + c), taps * b + 2 * 3]
    assert list(marginal.values()) == pytest.approx(expected, rel=1e-6)
    assert model.marginal_costs("volume", q)[1] == pytest.approx(
        dict.fromkeys(model.gates, 36.0)
    )


@core
def test_a_gate_on_two_paths_counts_once():
    """The same gated channels reach an addition twice."""
    inputs = keras.Input((4, 4, 3))
    x = conv_norm_relu(inputs, 4, 1)
    y = layers.Add()([layers.MaxPooling2D(1)(x), layers.ReLU()(x)])
    outputs = layers.Conv2D(2, 1, use_bias=False)(y)
    model = cost_model(keras_bar.gate(keras.Model(inputs, outputs)))
    (gate,) = model.gates
    p = np.array([0.1, 0.5, 0.7, 0.2], "float32")
    soft = model.soft("flops", {gate: ops.convert_to_tensor(p)})
    some = 1 - np.prod(1 - p)
    # The last layer drops out with the last channel that it reads.
    by_hand = 2 * 16 * p.sum() * (3 + 2 * some)
    assert float(ops.convert_to_numpy(soft)) == pytest.approx(by_hand)


@core
def test_a_metric_without_terms_is_zero():
    inputs = keras.Input((3,))
    x = keras_bar.layers.HardConcreteGate()(inputs)
    model = cost_model(keras.Model(inputs, layers.Dense(2)(x)))
    (gate,) = model.gates
    assert float(model.soft("volume", {gate: ops.ones((3,))})) == 0.0
    assert model.full["volume"] == 0


@core
def test_unknown_size():
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(conv_norm_relu(inputs, 4))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="Expected.*known size.*Received"):
        keras_bar.measure_cost(model)


@core
def test_regular_costs_at_least_as_much_as_mixed():
    gated = keras_bar.gate(residual_net())
    for seed in range(3):
        cost = keras_bar.measure_cost(close_gates(gated, seed))
        for metric in METRICS:
            assert getattr(cost.regular, metric) >= getattr(cost, metric)
    assert cost.regular.volume > cost.volume
    assert gates_of(gated)
