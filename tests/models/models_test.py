import math

import keras
import numpy as np
import pytest

from keras_bar import models


@pytest.fixture
def channels_first():
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format(before)


def convolutions(model):
    return [x for x in model.layers if isinstance(x, keras.layers.Conv2D)]


def conv_flops(model):
    """Twice the multiply-adds of the convolutions per sample."""
    return sum(
        2 * math.prod(x.kernel.shape) * math.prod(x.output.shape[1:3])
        for x in convolutions(model)
    )


def trainable_params(model):
    return sum(math.prod(x.shape) for x in model.trainable_variables)


def assert_round_trip(model, path):
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:]))
    model.save(path)
    loaded = keras.models.load_model(path)
    assert loaded.name == model.name
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(model(x)),
        keras.ops.convert_to_numpy(loaded(x)),
        rtol=1e-5,
    )


def test_wide_resnet_28_10_has_the_authors_parameters():
    model = models.WideResNet(28, 10, classes=10)
    assert trainable_params(model) == 36_479_194


@pytest.mark.parametrize(
    ("depth", "blocks"),
    [(8, 1), (10, 1), (14, 2), (16, 2), (20, 3), (22, 3), (26, 4), (28, 4)],
)
def test_both_ways_of_counting_depth(depth, blocks):
    model = models.WideResNet(depth, 0.25, (8, 8, 3))
    names = [x.name for x in model.layers if x.name.endswith("_add")]
    assert names == [
        f"group{group}_block{block}_add"
        for group in (1, 2, 3)
        for block in range(1, blocks + 1)
    ]


@pytest.mark.parametrize(
    ("width", "narrow", "widths"),
    [
        (1, 1, (16, 16, 32, 64)),
        (0.3, 1, (16, 5, 10, 19)),
        (1, 3, (5, 5, 11, 21)),
        (0.01, 100, (1, 1, 1, 1)),
    ],
)
def test_widths_are_rounded_and_at_least_one(width, narrow, widths):
    model = models.WideResNet(10, width, (8, 8, 3), narrow=narrow)
    readers = ("stem_conv",) + tuple(
        f"group{group}_block1_{part}"
        for part in ("conv1", "conv2", "shortcut")
        for group in (1, 2, 3)
    )
    found = tuple(model.get_layer(reader).filters for reader in readers)
    assert found == widths + widths[1:] * 2


def test_wide_resnet_is_pre_activation():
    model = models.WideResNet(14, 0.25, (16, 16, 3))
    shortcut = model.get_layer("group2_block1_shortcut")
    relu = model.get_layer("group2_block1_relu1")
    assert shortcut.input is relu.output
    assert model.get_layer("group2_block1_conv1").input is relu.output
    assert model.get_layer("group2_block1_norm2").input is (
        model.get_layer("group2_block1_conv1").output
    )
    identity, branch = model.get_layer("group2_block2_add").input
    assert identity is model.get_layer("group2_block1_add").output
    assert branch is model.get_layer("group2_block2_conv2").output
    strided = {x.name for x in convolutions(model) if x.strides == (2, 2)}
    assert strided == {
        f"group{group}_block1_{part}"
        for group in (2, 3)
        for part in ("conv1", "shortcut")
    }


def test_resnet50_is_version_1_5():
    """Parameters and FLOPs as commonly given, and the stride in the 3x3."""
    model = models.ResNet50((224, 224, 3), 1000)
    assert trainable_params(model) == 25_557_032
    assert conv_flops(model) / 2 == 4_087_136_256
    strided = {x.name for x in convolutions(model) if x.strides == (2, 2)}
    assert strided == {"stem_conv"} | {
        f"group{group}_block1_{part}"
        for group in (2, 3, 4)
        for part in ("conv2", "shortcut")
    }


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            lambda *a: models.WideResNet(10, 0.25, *a), id="wide_resnet"
        ),
        pytest.param(lambda *a: models.ResNet50(*a, narrow=16), id="resnet50"),
    ],
)
class TestBoth:
    @pytest.mark.parametrize(
        ("shape", "classes"), [((28, 28, 1), 1), ((33, 21, 5), 7)]
    )
    def test_any_input_size_and_classes(self, model, shape, classes):
        logits = model(shape, classes)(np.ones((2, *shape), "float32"))
        assert tuple(logits.shape) == (2, classes)

    def test_open_input_size(self, model):
        open_size = model((None, None, 3), 4)
        for size in (17, 40):
            x = np.ones((1, size, size, 3), "float32")
            assert tuple(open_size(x).shape) == (1, 4)

    def test_save_and_load(self, model, tmp_path):
        assert_round_trip(model((16, 16, 3), 3), tmp_path / "model.keras")

    def test_convolutions_and_only_they_are_bias_free(self, model):
        built = model((16, 16, 3), 3)
        assert not any(x.use_bias for x in convolutions(built))
        assert built.get_layer("classifier").use_bias

    def test_channels_first(self, model, channels_first):
        built = model((3, 24, 16), 5)
        assert built.input_shape == (None, 3, 24, 16)
        assert built.output_shape == (None, 5)
        stem = built.get_layer("stem_conv")
        assert stem.output.shape[1] == stem.filters
        for x in built.layers:
            if isinstance(x, keras.layers.BatchNormalization):
                assert x.gamma.shape[0] == x.output.shape[1]

    def test_default_input_is_rgb_in_channels_first(
        self, model, channels_first
    ):
        assert model().input_shape[1] == 3

    @pytest.mark.parametrize("classes", [0, -1, 2.5, None])
    def test_invalid_classes(self, model, classes):
        with pytest.raises(ValueError, match="`classes`.*Expected.*Received"):
            model((16, 16, 3), classes)

    @pytest.mark.parametrize("shape", [32, (32, 32), (None, 32, 32, 3)])
    def test_invalid_input_shape(self, model, shape):
        with pytest.raises(ValueError, match="`input_shape`.*Expec.*Received"):
            model(shape)


def test_logits_by_default():
    model = models.WideResNet(10, 0.25, (8, 8, 3))
    assert model.get_layer("classifier").activation is keras.activations.linear
    model = models.WideResNet(
        10, 0.25, (8, 8, 3), classifier_activation="softmax"
    )
    out = keras.ops.convert_to_numpy(model(np.ones((2, 8, 8, 3), "float32")))
    np.testing.assert_allclose(out.sum(axis=-1), 1.0, rtol=1e-5)


def test_names():
    assert models.WideResNet(10, 0.5, (8, 8, 3)).name == "wide_resnet_10_0_5"
    assert models.WideResNet(10, 1, (8, 8, 3), name="teacher").name == "teacher"
    assert models.ResNet50(narrow=64).name == "resnet50"


@pytest.mark.parametrize("depth", [4, 2, 0, -4, 9, 27, 24, 26.5])
def test_invalid_depth(depth):
    with pytest.raises(ValueError, match="`depth`.*Expected 6n.*Received"):
        models.WideResNet(depth)


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_invalid_width(width):
    with pytest.raises(ValueError, match="`width`.*Expected.*Received"):
        models.WideResNet(10, width)


@pytest.mark.parametrize("narrow", [0, 0.5, -2, float("nan")])
@pytest.mark.parametrize("model", [models.WideResNet, models.ResNet50])
def test_invalid_narrow(model, narrow):
    with pytest.raises(ValueError, match="`narrow`.*Expected.*Received"):
        model(narrow=narrow)
