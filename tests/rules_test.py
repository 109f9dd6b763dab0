"""A small model per layer type, its gates half closed at random.

Every layer is tried behind a gate, where dead channels are 0, and behind a
batch normalization of gated channels, where they hold other constants.
"""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis.rules import base
from keras_bar.analysis.rules import channel_selection
from keras_bar.layers import HardConcreteGate
from keras_bar.layers import MixedResidual
from tests.pruning import BOTH
from tests.pruning import assert_invariants
from tests.pruning import close_gates
from tests.pruning import difference
from tests.pruning import gates_of
from tests.pruning import inputs_for
from tests.pruning import open_gates
from tests.pruning import randomize

CHANNELS = 6


@keras.saving.register_keras_serializable("tests")
class Custom(layers.Layer):
    """A layer nobody knows: its channels see each other."""

    def call(self, x):
        return x + ops.mean(x, axis=-1, keepdims=True)


def before(x, zero, rank=2):
    """A gated convolution, and constants if `zero` is not wanted."""
    conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
    x = conv(CHANNELS, 1, name="first")(x)
    return x if zero else layers.BatchNormalization()(layers.ReLU()(x))


def behind(x):
    """Readers of every channel: a 1x1 convolution where there is space."""
    rank = len(x.shape) - 2
    if rank:
        conv = {1: layers.Conv1D, 2: layers.Conv2D, 3: layers.Conv3D}[rank]
        x = conv(3, 1, use_bias=False, name="last")(x)
        x = layers.Flatten()(layers.ReLU()(x))
    return layers.Dense(2, name="logits")(x)


def model_with(layer, zero, rank=2, size=6):
    inputs = keras.Input((size,) * rank + (3,))
    x = layer(before(inputs, zero, rank))
    return keras.Model(inputs, behind(x))


def prune(model, seed=0, **kwargs):
    """Asserts all invariants on a model, and that closing removed something
    wherever `first` is gated."""
    gated = keras_bar.gate(randomize(model))
    x = inputs_for(model)
    assert difference(open_gates(gated), model, x) < 1e-5
    close_gates(gated, seed)
    hard, small = assert_invariants(gated, **kwargs)
    return gated, hard, small


def filters_of(model, name="first"):
    return model.get_layer(name).filters


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
CHANNELWISE = {
    "batch_norm": lambda: layers.BatchNormalization(),
    "batch_norm_no_scale": lambda: layers.BatchNormalization(scale=False),
    "batch_norm_no_center": lambda: layers.BatchNormalization(center=False),
    "prelu": lambda: layers.PReLU(shared_axes=[1, 2]),
    "prelu_one_slope": lambda: layers.PReLU(shared_axes=[1, 2, 3]),
    "prelu_per_place": lambda: layers.PReLU(),
    "rescaling": lambda: layers.Rescaling(0.5, offset=0.1),
    "rescaling_per_channel": lambda: layers.Rescaling(
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], offset=0.2
    ),
    "normalization": lambda: layers.Normalization(),
    "normalization_given": lambda: layers.Normalization(
        mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], variance=[1.5] * 6
    ),
    "normalization_scalar": lambda: layers.Normalization(
        axis=None, mean=0.5, variance=2.0
    ),
    "max_pooling": lambda: layers.MaxPooling2D(3, 2, padding="same"),
    "average_pooling": lambda: layers.AveragePooling2D(3, 2, padding="same"),
    "ops_max_pool": lambda: lambda x: ops.max_pool(x, 2),
    "ops_average_pool": lambda: (
        lambda x: ops.average_pool(x, 3, padding="same")
    ),
    "cropping": lambda: layers.Cropping2D(((1, 0), (2, 1))),
    "up_sampling": lambda: layers.UpSampling2D(2),
    "up_sampling_bilinear": lambda: layers.UpSampling2D(
        2, interpolation="bilinear"
    ),
    "global_average": lambda: layers.GlobalAveragePooling2D(),
    "global_max": lambda: layers.GlobalMaxPooling2D(),
    "global_kept": lambda: layers.GlobalAveragePooling2D(keepdims=True),
    "ops_mean": lambda: lambda x: ops.mean(x, axis=(1, 2)),
    "ops_max_kept": lambda: lambda x: ops.max(x, axis=[1, -2], keepdims=True),
    "flatten": lambda: layers.Flatten(),
    "reshape": lambda: layers.Reshape((-1, CHANNELS)),
    "reshape_spelled_out": lambda: layers.Reshape((4, 9, CHANNELS)),
    "ops_reshape": lambda: lambda x: ops.reshape(x, (-1, 36, CHANNELS)),
    "dropout": lambda: layers.Dropout(0.5),
    "spatial_dropout": lambda: layers.SpatialDropout2D(0.5),
    "gaussian_dropout": lambda: layers.GaussianDropout(0.5),
    "alpha_dropout": lambda: layers.AlphaDropout(0.5),
    "gaussian_noise": lambda: layers.GaussianNoise(0.5),
    "identity": lambda: layers.Identity(),
    "activity": lambda: layers.ActivityRegularization(0.1),
    "depthwise_valid": lambda: layers.DepthwiseConv2D(3, activation="relu"),
    "depthwise_twice": lambda: layers.DepthwiseConv2D(2, depth_multiplier=2),
    "slice": lambda: lambda x: x[..., 1:5],
    "slice_steps": lambda: lambda x: x[:, :, :, ::2],
    "take": lambda: lambda x: ops.take(x, [4, 0, 5, 2], axis=-1),
    "pad_channels": lambda: lambda x: ops.pad(x, [[0, 0]] * 3 + [[2, 1]]),
    "transpose": lambda: lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "transpose_twice": lambda: (
        lambda x: ops.transpose(
            ops.relu(ops.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1)
        )
    ),
    "take_zeros": lambda: (
        lambda x: ops.take(
            ops.pad(x, [[0, 0]] * 3 + [[0, 1]]), [6, 1, 6, 0, 3, 6], axis=-1
        )
    ),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    def apply(x):
        return layers.Concatenate()([make()(x) for make in ELEMENTWISE[name]])

    assert_removable(apply, zero=False)


@pytest.mark.parametrize("name", CHANNELWISE)
def test_channelwise(name):
    for zero in (False, True) if "prelu" in name else (False,):
        assert_removable(CHANNELWISE[name](), zero)


def assert_removable(layer, zero):
    """Nothing stops the removal, and nothing is changed by it."""
    gated, hard, small = prune(model_with(layer, zero))
    alive = int(gates_of(gated)[0].alive().sum())
    assert filters_of(small) <= alive < CHANNELS
    explanation = keras_bar.explain(small)
    assert explanation.gated[0] == "first"
    assert not explanation.boundaries
    assert not explanation.adjustments


MIXING = {
    "conv1d": (1, lambda **k: layers.Conv1D(4, 3, **k)),
    "conv2d": (2, lambda **k: layers.Conv2D(4, 3, **k)),
    "conv3d": (3, lambda **k: layers.Conv3D(4, 2, **k)),
    "strided": (2, lambda **k: layers.Conv2D(4, (3, 2), strides=2, **k)),
    "dilated": (2, lambda **k: layers.Conv2D(4, 2, dilation_rate=2, **k)),
    "relu_inside": (2, lambda **k: layers.Conv2D(4, 3, activation="relu", **k)),
    "sigmoid_inside": (
        2,
        lambda **k: layers.Conv2D(4, 3, activation="sigmoid", **k),
    ),
    "softmax_inside": (
        2,
        lambda **k: layers.Conv2D(4, 3, activation="softmax", **k),
    ),
    "conv1d_transpose": (1, lambda **k: layers.Conv1DTranspose(4, 3, **k)),
    "conv2d_transpose": (
        2,
        lambda **k: layers.Conv2DTranspose(4, 3, strides=2, **k),
    ),
    "conv3d_transpose": (3, lambda **k: layers.Conv3DTranspose(4, 2, **k)),
    "separable_1d": (1, lambda **k: layers.SeparableConv1D(4, 3, **k)),
    "separable_2d": (
        2,
        lambda **k: layers.SeparableConv2D(4, 3, depth_multiplier=2, **k),
    ),
    "depthwise_1d": (1, lambda **k: layers.DepthwiseConv1D(3, **k)),
    "depthwise_2d": (2, lambda **k: layers.DepthwiseConv2D(3, **k)),
    "depthwise_multiplied": (
        2,
        lambda **k: layers.DepthwiseConv2D(3, depth_multiplier=3, **k),
    ),
}


@pytest.mark.parametrize("use_bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize(
    ("zero", "padding"),
    [(True, "same"), (False, "same"), (False, "valid")],
    ids=["zero", "constant_same", "constant_valid"],
)
@pytest.mark.parametrize("name", MIXING)
def test_kernels(name, zero, padding, use_bias):
    rank, make = MIXING[name]
    if use_bias and (zero or rank != 2):
        pytest.skip("tried without a bias")
    layer = make(padding=padding, use_bias=use_bias)
    gated, hard, small = prune(model_with(layer, zero, rank, size=5))
    assert filters_of(small) == gates_of(gated)[0].alive().sum() < CHANNELS
    explanation = keras_bar.explain(small)
    assert not explanation.boundaries
    changes = not zero and (padding == "same" or "transpose" in name)
    assert len(explanation.adjustments) == changes


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no_norm"])
@pytest.mark.parametrize("zero", [True, False], ids=["zero", "constant"])
def test_causal_convolution(zero, norm):
    def layer(x):
        x = layers.Conv1D(4, 3, padding="causal", use_bias=not norm)(x)
        return layers.BatchNormalization()(x) if norm else x

    prune(model_with(layer, zero, rank=1))


@pytest.mark.parametrize("zero", [True, False], ids=["zero", "constant"])
@pytest.mark.parametrize(
    "padding",
    [
        lambda: layers.ZeroPadding2D(((1, 0), (2, 1))),
        lambda: lambda x: ops.pad(x, [[0, 0], [1, 0], [1, 1], [0, 0]]),
    ],
    ids=["layer", "ops"],
)
@pytest.mark.parametrize(
    "reader",
    [
        lambda x: layers.Conv2D(4, 3, use_bias=False)(x),
        lambda x: layers.BatchNormalization()(
            layers.Conv2D(4, 3, 2, use_bias=False)(x)
        ),
        lambda x: layers.DepthwiseConv2D(3)(x),
        lambda x: layers.BatchNormalization()(
            layers.DepthwiseConv2D(3, use_bias=False)(x)
        ),
        lambda x: layers.MaxPooling2D(3, 2)(x),
        lambda x: layers.Concatenate()(
            [layers.Conv2D(4, 3)(x), layers.AveragePooling2D(3, 1)(x)]
        ),
    ],
    ids=["conv", "conv_norm", "depthwise", "depthwise_norm", "pool", "both"],
)
def test_readers_of_a_zero_padding(reader, padding, zero):
    gated, hard, small = prune(model_with(lambda x: reader(padding()(x)), zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum()


@pytest.mark.parametrize("zero", [True, False], ids=["zero", "constant"])
@pytest.mark.parametrize("units", [None, "sigmoid", "softmax"])
def test_dense(units, zero):
    def layer(x):
        x = layers.GlobalAveragePooling2D()(x)
        return layers.Dense(5, activation=units)(x)

    gated, hard, small = prune(model_with(layer, zero))
    assert filters_of(small) == gates_of(gated)[0].alive().sum()


def test_dense_over_positions():
    prune(model_with(layers.Dense(5, activation="relu"), zero=False))


def branches(x):
    """Two convolutions of the same input, with gates of their own; one of them
    with constants where it is dead."""
    a = layers.Conv2D(CHANNELS, 1, name="a")(x)
    b = layers.Conv2D(CHANNELS, 3, padding="same", name="b")(x)
    return a, layers.BatchNormalization()(layers.ReLU()(b))


MERGING = {
    "add": lambda: layers.Add(),
    "subtract": lambda: layers.Subtract(),
    "multiply": lambda: layers.Multiply(),
    "average": lambda: layers.Average(),
    "maximum": lambda: layers.Maximum(),
    "minimum": lambda: layers.Minimum(),
    "concatenate": lambda: layers.Concatenate(),
    "ops_add": lambda: lambda x: x[0] + x[1],
    "ops_subtract": lambda: lambda x: ops.subtract(x[1], x[0]),
    "ops_multiply": lambda: lambda x: x[0] * x[1],
    "ops_maximum": lambda: lambda x: ops.maximum(*x),
    "ops_minimum": lambda: lambda x: ops.minimum(*x),
    "ops_concatenate": lambda: lambda x: ops.concatenate(x, axis=-1),
    "mixed_residual": lambda: MixedResidual(
        [[5, 0, 2, 3, 1, 7], [1, 2, 3, 4, 5, 6]],
        channels=8,
        constant=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
    ),
}


@pytest.mark.parametrize("dead", [(), ("a_gate",), ("b_gate",)])
@pytest.mark.parametrize("name", MERGING)
def test_merging(name, dead):
    """Also where one side is dead throughout."""
    inputs = keras.Input((6, 6, 3))
    merged = MERGING[name]()([*branches(inputs)])
    model = keras.Model(inputs, behind(merged))
    gated = keras_bar.gate(randomize(model))
    assert {x.name for x in gates_of(gated)} >= {"a_gate", "b_gate"}
    close_gates(gated, dead=dead)
    if name.endswith("multiply") and dead == ("a_gate",):
        with pytest.raises(ValueError, match="disconnected"):
            keras_bar.compact(gated)
        return
    hard, small = assert_invariants(gated, ("mixed",) if dead else BOTH)
    assert not keras_bar.explain(small).adjustments
    kept = {x.name for x in small.layers} & {"a", "b"}
    assert len(kept) == 2 - len(dead)


@pytest.mark.parametrize("reduce", ["layer", "kept", "ops"])
@pytest.mark.parametrize("dead", [(), ("squeeze_gate",)])
def test_squeeze_and_excitation(dead, reduce):
    """The factors follow the channels they scale; a dead squeeze leaves a
    constant factor."""

    def layer(x):
        if reduce == "ops":
            factors = ops.mean(x, axis=(1, 2), keepdims=True)
        else:
            keep = reduce == "kept"
            factors = layers.GlobalAveragePooling2D(keepdims=keep)(x)
            if not keep:
                factors = layers.Reshape((1, 1, CHANNELS))(factors)
        factors = layers.Conv2D(4, 1, activation="relu", name="squeeze")(
            factors
        )
        factors = layers.Conv2D(
            CHANNELS, 1, activation="sigmoid", name="excite"
        )(factors)
        by_layer = reduce == "layer"
        return layers.Multiply()([x, factors]) if by_layer else x * factors

    gated = keras_bar.gate(randomize(model_with(layer, zero=True)))
    assert {x.name for x in gates_of(gated)} == {
        "first_gate",
        "squeeze_gate",
        "last_gate",
    }
    assert "follow" in keras_bar.explain(gated).ungated["excite"]
    close_gates(gated, dead=dead)
    hard, small = assert_invariants(gated)
    alive = int(gated.get_layer("first_gate").alive().sum())
    assert filters_of(small) == alive
    names = {x.name for x in small.layers}
    if dead:
        assert not {"squeeze", "excite"} & names
    else:
        assert filters_of(small, "excite") == alive


def test_spatial_attention():
    """One channel that scales all others."""

    def layer(x):
        mask = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(x)
        return layers.Multiply()([x, mask])

    prune(model_with(layer, zero=True))


BOUNDARIES = {
    "grouped": lambda: layers.Conv2D(6, 3, groups=2, name="odd"),
    "layer_norm": lambda: layers.LayerNormalization(name="odd"),
    "group_norm": lambda: layers.GroupNormalization(2, name="odd"),
    "custom": lambda: Custom(name="odd"),
    "softmax": lambda: layers.Softmax(name="odd"),
    "permute": lambda: layers.Permute((2, 3, 1), name="odd"),
    "pad_both": lambda: lambda x: ops.pad(x, [[0, 0], [1, 0], [0, 0], [0, 2]]),
    "take_twice": lambda: lambda x: ops.take(x, [0, 1, 1, 2], axis=-1),
    "reshape": lambda: layers.Reshape((6, 3, 12), name="odd"),
    "other_axis_norm": lambda: layers.BatchNormalization(axis=1, name="odd"),
    "ops_softmax": lambda: ops.softmax,
    "noise_shape": lambda: layers.Dropout(
        0.5, noise_shape=(None, 1, 1, 6), name="odd"
    ),
}


@pytest.mark.parametrize("dead", [(), ("middle_gate",)])
@pytest.mark.parametrize("name", BOUNDARIES)
def test_boundaries(name, dead):
    """Restored to full width in front, free again behind, and reported; also
    where everything in front is dead."""
    odd = BOUNDARIES[name]()

    def layer(x):
        y = layers.Conv2D(5, 1, name="middle")(x)
        y = layers.Conv2D(6, 1, name="ungated")(y)
        y = layers.Conv2D(4, 1, name="behind")(odd(y))
        return layers.Concatenate()(
            [
                layers.GlobalAveragePooling2D()(y),
                layers.GlobalAveragePooling2D()(x),
            ]
        )

    gated = keras_bar.gate(randomize(model_with(layer, zero=False)))
    why = keras_bar.explain(gated).ungated["ungated"]
    assert "needs all of its channels" in why
    close_gates(gated, dead=dead)
    hard, small = assert_invariants(gated)
    assert small.get_layer("behind").filters < 4


def test_attention_is_a_boundary():
    def layer(x):
        x = layers.Reshape((36, CHANNELS))(x)
        return layers.MultiHeadAttention(2, 3, name="attention")(x, x)

    gated = keras_bar.gate(randomize(model_with(layer, zero=True)))
    explanation = keras_bar.explain(gated)
    assert explanation.gated == ["last"]
    assert "MultiHeadAttention" in explanation.ungated["first"]
    close_gates(gated)
    assert_invariants(gated)


@pytest.mark.parametrize("norm", [True, False], ids=["norm", "no_norm"])
def test_a_gate_in_front_of_a_boundary_is_restored(norm):
    """By hand gates can be put anywhere."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(CHANNELS, 1)(inputs)
    x = HardConcreteGate(name="by_hand")(x)
    if norm:
        x = layers.BatchNormalization()(x)
    x = layers.LayerNormalization(name="odd")(x)
    model = randomize(keras.Model(inputs, behind(x)))
    for dead in ((), ("by_hand",)):
        close_gates(model, dead=dead)
        if dead:
            with pytest.raises(ValueError, match="disconnected"):
                keras_bar.compact(model)
            continue
        hard, small = assert_invariants(model)
        assert "odd" in keras_bar.explain(small).boundaries
        assert keras_bar.explain(small).restored


@pytest.mark.skipif(
    keras.backend.backend() == "tensorflow",
    reason="TensorFlow on CPU has no convolution with channels first",
)
@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Conv2D(4, 3, padding="same"),
        lambda: layers.Conv2DTranspose(4, 3),
        lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
        lambda: layers.SeparableConv2D(4, 3),
        lambda: layers.MaxPooling2D(2),
        lambda: layers.ZeroPadding2D(1),
        lambda: layers.UpSampling2D(2),
        lambda: layers.PReLU(shared_axes=[2, 3]),
        lambda: layers.SpatialDropout2D(0.2),
        lambda: layers.GlobalMaxPooling2D(),
        lambda: layers.Flatten(),
        lambda: layers.Flatten(data_format="channels_last"),
        lambda: layers.Reshape((6, 4, 9)),
        lambda: lambda x: x[:, 2:5],
        lambda: lambda x: x + layers.Conv2D(6, 3, padding="same")(x),
        lambda: lambda x: ops.concatenate([x, layers.Conv2D(2, 1)(x)], axis=1),
        lambda: (
            lambda x: (
                x
                * layers.Conv2D(6, 1, activation="sigmoid")(
                    layers.GlobalAveragePooling2D(keepdims=True)(x)
                )
            )
        ),
    ],
)
def test_channels_first(layer, channels_first):
    inputs = keras.Input((3, 6, 6))
    x = layers.Conv2D(6, 1, name="first")(inputs)
    x = layers.BatchNormalization(axis=1)(layers.ReLU()(x))
    x = layer()(x)
    if len(x.shape) == 4:
        x = layers.BatchNormalization(axis=1)(layers.Conv2D(4, 1)(x))
        x = layers.Flatten()(layers.ReLU()(x))
    gated, hard, small = prune(keras.Model(inputs, layers.Dense(2)(x)))
    assert filters_of(small) < 6


@pytest.fixture
def channels_first():
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


def test_unknown_functions_are_not_taken_for_known_ones():
    """A function of the same name may do anything."""

    def relu(x):
        return x - ops.mean(x, axis=-1, keepdims=True)

    gated = keras_bar.gate(
        model_with(lambda x: layers.Activation(relu)(x), zero=True)
    )
    assert "first" in keras_bar.explain(gated).ungated


def test_division_by_channels_is_a_boundary():
    gated = keras_bar.gate(model_with(lambda x: 1.0 / x, zero=True))
    assert "finite" in keras_bar.explain(gated).ungated["first"]


def test_a_constant_tensor_is_a_boundary():
    factors = np.linspace(0.1, 0.6, CHANNELS, dtype="float32")
    gated, hard, small = prune(model_with(lambda x: x * factors, zero=True))
    assert "constant tensor" in keras_bar.explain(small).ungated["first"]


class Reversed(layers.Layer):
    """A kind of layer that the package does not know: channels, last first."""

    __module__ = "keras_bar.layers"  # Only layers of the package have rules.

    def call(self, x):
        return ops.flip(x, axis=-1)


@pytest.mark.parametrize("zero", (False, True))
def test_a_kind_of_layer_is_one_rule(zero):
    model = model_with(Reversed(), zero)
    assert "no rule knows" in keras_bar.explain(model).ungated["first"]

    class ReversedRule(channel_selection.Selection):
        layers = "Reversed"

        def chosen(self, node, axis):
            return np.arange(node.output.shape[axis])[::-1]

    try:
        assert keras_bar.explain(model).gated == ["first", "last"]
        prune(model)
    finally:
        del base._REGISTRY[True, "Reversed"]
