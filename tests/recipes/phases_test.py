"""The phases as data."""

import pytest

from recipes.data import registry
from recipes.experiment import phases


def test_phases_of_the_supplement():
    assert phases.load("cifar10", "full") == phases.Phases(0, 80, 10)
    assert phases.load("cifar100", "gates") == phases.Phases(80, 40, 10)
    assert phases.load("mio_tcd", "gates") == phases.Phases(40, 20, 10)
    assert phases.load("cifar10", "morphnet") == phases.Phases(60, 50, 20)
    assert phases.load("mio_tcd", "full") == phases.Phases(0, 40, 10)
    assert phases.load("mio_tcd", "morphnet") == phases.Phases(40, 20, 10)
    # Its full network is trained as long as one of its halvings.
    assert phases.load("mio_tcd", "halving") == phases.Phases(0, 40, 10)
    anew = phases.Phases(0, 40, 10, anew=True)
    assert phases.load("cifar10", "halving") == anew
    assert phases.load("cifar100", "halving") == anew


def test_where_the_paper_starts_from_the_full_network():
    starts = {x: registry.DATASETS[x].start for x in registry.PAPER}
    assert starts.pop("mio_tcd") == "teacher"
    assert set(starts.values()) == {"scratch"}


@pytest.mark.parametrize("kind", ["gates", "morphnet", "halving"])
def test_methods_on_fashion_mnist_are_equally_long(kind):
    assert phases.load("fashion_mnist", kind).total == 30


def test_short_phases_have_an_epoch_each():
    short = phases.load("cifar10", "gates", scale=0.01)
    assert short == phases.Phases(1, 1, 1)
    assert phases.load("cifar10", "full", scale=0.5) == phases.Phases(0, 40, 5)


@pytest.mark.parametrize(
    "dataset",
    [*registry.PAPER, *[x.phases for x in registry.DATASETS.values()]],
)
@pytest.mark.parametrize("kind", ["full", "gates", "morphnet", "halving"])
def test_every_data_set_has_phases(dataset, kind):
    assert phases.load(dataset, kind).train > 0


def test_rounds_share_their_epochs_or_have_their_own():
    own = phases.Phases(high=40, low=10)
    assert own.of_round(1, 4) == own
    shared = phases.Phases(high=24, low=6, shared=True)
    rounds = [shared.of_round(i, 4) for i in range(4)]
    assert [x.train for x in rounds] == [7, 8, 7, 8]
    assert [x.low for x in rounds] == [1, 2, 1, 2]
    short = phases.Phases(high=5, low=1, shared=True)
    assert short.of_round(0, 3) == phases.Phases(high=1, low=1)
