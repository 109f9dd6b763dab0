import keras
import pytest
from keras import layers

import keras_bar
from keras_bar import models
from keras_bar.costs import METRICS
from tests.helpers.costs import cost_model
from tests.helpers.costs import residual_net
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import numbers
from tests.helpers.pruning import open_gates

core = pytest.mark.core


def test_wide_resnet_costs_what_the_supplement_says():
    model = models.WideResNet()
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    cost = keras_bar.measure_cost(model)
    convolutions = [x for x in cost.layers if x.kind == "Conv2D"]
    assert cost.volume == 3_112_960
    assert sum(x.flops for x in convolutions) == 15_087_796_224
    # 3,112,960 / 1.97e5 and / 3.93e5 are the dagger rows of the tables.
    assert cost.volume / 1.97e5 == pytest.approx(15.8, abs=0.05)
    assert cost.volume / 3.93e5 == pytest.approx(7.9, abs=0.05)


@pytest.mark.parametrize(
    ("narrow", "factor"), [(4, 15.997), (8, 63.974), (16, 255.775)]
)
def test_wide_resnet_narrowed_uniformly(narrow, factor):
    cost = keras_bar.measure_cost(models.WideResNet(narrow=narrow))
    flops = sum(x.flops for x in cost.layers if x.kind == "Conv2D")
    assert cost.volume * narrow == 3_112_960
    assert 15_087_796_224 / flops == pytest.approx(factor, abs=5e-4)


def test_resnet50_costs_what_the_supplement_says():
    model = models.ResNet50()
    assert model.input_shape == (None, 128, 128, 3)
    assert model.output_shape == (None, 11)
    cost = keras_bar.measure_cost(model)
    assert cost.volume == 3_629_056 == 2 * 1_814_528
    narrow = models.ResNet50(narrow=16)
    assert keras_bar.measure_cost(narrow).volume * 16 == cost.volume
    assert narrow.get_layer("stem_conv").filters == 4
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
        pytest.param(
            lambda: keras.applications.VGG16(
                weights=None, input_shape=(32, 32, 3), include_top=False
            ),
            marks=pytest.mark.slow,
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
        *(f"{getattr(cost, metric):,}" for metric in METRICS),
    ]
    assert "of 5" in str(cost)


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
        # Regular additions need no temporary tensor: memory may be less.
        for metric in ("volume", "flops", "params"):
            assert getattr(cost.regular, metric) >= getattr(cost, metric)
    assert cost.regular.volume > cost.volume
    assert gates_of(gated)
