"""The data sets and networks of the recipes."""

import pytest

import keras_bar
from recipes import datasets


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_networks_can_be_narrowed(name):
    for build in datasets.DATASETS[name].networks.values():
        full = keras_bar.measure_cost(build())
        narrow = keras_bar.measure_cost(build(narrow=4))
        assert narrow.volume * 4 == full.volume


def test_networks_read_the_digits():
    known = datasets.DATASETS["digits"]
    digits = known.load(None, 128)
    assert len(digits.x) == len(digits.y) == 128
    for build in known.networks.values():
        assert digits.x.shape[1:] == build().input_shape[1:]
