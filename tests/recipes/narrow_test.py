"""The narrow network that pruned ones are compared with."""

import functools
import types

import pytest

import keras_bar
from keras_bar import models
from recipes.methods import narrow

slow = pytest.mark.slow
NETWORKS = {
    "vit": functools.partial(models.ViT, (18, 18, 1), 100),
    "mobile": functools.partial(models.MobileNet, (18, 18, 1), 100),
    "plain": functools.partial(models.VGG, (18, 18, 1), 100, convolutions=1),
}


@pytest.mark.parametrize(
    ("network", "metric"),
    [
        ("mobile", "flops"),
        *(pytest.param("mobile", x, marks=slow) for x in ("volume", "params")),
        *(("plain", x) for x in ("flops", "volume", "params")),
    ],
)
def test_costs_what_the_factor_leaves(network, metric):
    """Depthwise convolutions and the classifier do not shrink by the square."""
    build = NETWORKS[network]
    factor = 16
    experiment = types.SimpleNamespace(
        key=types.SimpleNamespace(factor=factor, metric=metric),
        build=lambda narrow=1: build(narrow=narrow),
    )
    found = getattr(keras_bar.measure_cost(narrow.narrowed(experiment)), metric)
    full = getattr(keras_bar.measure_cost(build()), metric)
    assert factor * found / full == pytest.approx(1, abs=0.08)
