"""The data sets and networks of the recipes."""

import pytest

import keras_bar
from recipes.data import registry

SMALL = ("fashion_mnist", "digits")


@pytest.mark.parametrize("name", SMALL)
def test_networks_can_be_narrowed(name):
    for build in registry.DATASETS[name].networks.values():
        full = keras_bar.measure_cost(build())
        narrow = keras_bar.measure_cost(build(narrow=4))
        assert narrow.volume * 4 == full.volume


@pytest.mark.parametrize("name", registry.PAPER)
def test_networks_of_the_made_up_pictures_are_narrower_still(name):
    real, small = (registry.DATASETS[name + x] for x in ("", "-synthetic"))
    (build,) = small.networks.values()
    once, twice = (keras_bar.measure_cost(build(narrow=x)) for x in (1, 2))
    assert 1.9 < once.volume / twice.volume < 2.1
    assert list(small.networks) == list(real.networks)


def test_networks_read_the_digits():
    known = registry.DATASETS["digits"]
    digits = known.load(None, 128, False)
    assert len(digits.x) == len(digits.y) == 128
    for build in known.networks.values():
        assert digits.x.shape[1:] == build().input_shape[1:]
