"""The networks for small images that are not the paper's."""

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import models

BUILDERS = {
    "vgg": lambda *a, **k: models.VGG(*a, widths=(8, 16), **k),
    "mobile": lambda *a, **k: models.MobileNet(
        *a, blocks=[(16, 32, 1), (16, 32, 1), (24, 32, 2)], **k
    ),
    "vit": lambda *a, **k: models.ViT(*a, width=16, depth=1, **k),
    "convnext": lambda *a, **k: models.ConvNeXt(
        *a, widths=(8, 16), depths=(1, 1), **k
    ),
    "dense": lambda *a, **k: models.DenseNet(*a, blocks=(2, 2), growth=8, **k),
}


@pytest.fixture(params=BUILDERS)
def build(request):
    return BUILDERS[request.param]


def test_any_input_size_and_classes(build):
    for shape, classes in (((14, 14, 1), 7), ((9, 21, 3), 1)):
        model = build(shape, classes)
        assert model.output_shape == (None, classes)
        assert model.get_layer("classifier").activation.__name__ == "linear"


def test_channels_first(build):
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = build((1, 14, 14), 5)
        assert model.output_shape == (None, 5)
        assert build().input_shape == (None, 3, 32, 32)
    finally:
        keras.config.set_image_data_format(before)
    norms = [
        x
        for x in model.layers
        if isinstance(x, keras.layers.BatchNormalization)
    ]
    assert all(x.gamma.shape[0] == x.output.shape[1] for x in norms)


def test_narrow_divides_every_width(build):
    full, half = build((14, 14, 1)), build((14, 14, 1), narrow=2)
    pairs = [
        (x.filters, y.filters)
        for x, y in zip(full.layers, half.layers, strict=True)
        if type(x) is keras.layers.Conv2D
    ]
    assert all(2 * y == x for x, y in pairs)
    tiny = build((14, 14, 1), narrow=1000)
    assert keras_bar.measure_cost(tiny).volume > 0


def test_all_that_convolutions_compute_is_behind_gates(build):
    """Half of every width can be removed, and nothing else changes."""
    gated = keras_bar.gate(build((14, 14, 1)), seed=0)
    rng = np.random.default_rng(0)
    for gate in gated.layers:
        if isinstance(gate, keras_bar.layers.ChannelGate):
            gate.set_alive(rng.permutation(gate.channels) < gate.channels // 2)
    small = keras_bar.compact(gated)
    x = rng.normal(size=(4, 14, 14, 1)).astype("float32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(small(x)),
        keras.ops.convert_to_numpy(gated(x)),
        rtol=1e-4,
        atol=1e-5,
    )
    full = keras_bar.measure_cost(build((14, 14, 1)))
    assert keras_bar.measure_cost(small).flops < 0.5 * full.flops


def test_a_mobile_block_keeps_its_input_where_sizes_agree():
    model = models.MobileNet((14, 14, 1), blocks=[(32, 64, 1), (32, 64, 2)])
    names = [x.name for x in model.layers]
    assert "block1_add" in names and "block2_add" not in names


def test_dense_layers_read_all_before_them():
    model = models.DenseNet((14, 14, 1), blocks=(3,), growth=8)
    widths = [
        model.get_layer(f"block1_layer{i}_conv1").input.shape[-1]
        for i in (1, 2, 3)
    ]
    assert widths == [16, 24, 32]


def test_plain_has_one_convolution_per_group():
    model = models.VGG((14, 14, 1), widths=(8, 16), convolutions=1)
    names = [x.name for x in model.layers if "conv" in x.name]
    assert names == ["group1_conv1", "group2_conv1"]


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: models.ViT(heads=0), "heads"),
        (lambda: models.ViT(depth=-1), "depth"),
        (lambda: models.DenseNet(growth=0), "growth"),
        (lambda: models.VGG(convolutions=0), "convolutions"),
        (lambda: models.ConvNeXt(widths=(), depths=()), "widths"),
        (lambda: models.ConvNeXt(widths=(8,), depths=(1, 2)), "depths"),
        (lambda: models.MobileNet(blocks=[(8, 16)]), "blocks"),
    ],
)
def test_invalid_sizes(make, name):
    with pytest.raises(ValueError, match=f"`{name}`.*Expected.*Received"):
        make()


def test_invalid_narrow(build):
    with pytest.raises(ValueError, match="`narrow`.*Expected.*Received"):
        build((14, 14, 1), narrow=0.5)
