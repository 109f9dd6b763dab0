"""The search for a strength, and the phases as data."""

import math

import pytest

from recipes.data import registry
from recipes.experiment import phases
from recipes.experiment import resuming
from recipes.methods import morphnet
from recipes.methods import strength_search


def size_of(strength):
    """Falls from 1, by a power of the strength."""
    return 1.0 / (1.0 + (strength / 1e-4) ** 0.7)


@pytest.mark.parametrize("start", [1e-6, 1e-4, 1e-2])
@pytest.mark.parametrize("factor", [2, 16])
def test_finds_a_strength_within_its_trials(start, factor):
    tried = []

    def attempt(strength):
        tried.append(strength)
        return size_of(strength)

    strength = strength_search.search(attempt, 1 / factor, start)
    assert strength in tried
    assert len(tried) <= strength_search.TRIALS
    assert abs(math.log(size_of(strength) * factor)) <= math.log(
        strength_search.NEAR
    )


def test_the_nearest_where_none_is_near():
    """Sizes that jump past the target."""
    strength = strength_search.search(
        lambda x: 1.0 if x < 3.0 else 0.01, 0.1, 1.0
    )
    assert strength < 3.0  # A factor of 10 either way: the first one stays.


def test_near_enough_is_enough():
    assert strength_search.search(lambda x: 0.24, 0.25, 1.0) == 1.0
    tried = []
    found = strength_search.search(
        lambda x: tried.append(x) or 0.2, 0.25, 1.0, near=1.5
    )
    assert found == 1.0 and tried == [1.0]


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_what_is_expanded_was_shrunk_to_less(factor):
    """Not to more than the budget, or expanding it would shrink it further."""
    penalty = morphnet.PENALTY
    assert penalty.expanded
    target = penalty.aim / factor
    found = strength_search.search(
        size_of, target, penalty.strength, penalty.near
    )
    assert 0.5 / factor <= size_of(found) <= 1 / factor


def test_what_is_known_is_not_searched_for_again():
    tried = []

    def attempt(strength):
        tried.append(strength)
        return size_of(strength)

    known = [1e-5, 1e-3]
    first = strength_search.search(attempt, 1 / 4, 1e-2, known=known)
    assert set(tried[:2]) == set(known) and 1e-5 < min(tried[2:]) < 1e-3
    tried.clear()
    again = strength_search.search(attempt, 1 / 4, 1e-2, known=[*known, first])
    assert again == first and len(tried) == 3


def test_an_interrupted_search_goes_the_same_way(tmp_path):
    run = resuming.Run(tmp_path, {})

    def search(name, tried, known, stop=None):
        def attempt(strength):
            if len(tried) == stop:
                raise KeyboardInterrupt
            tried.append(strength)
            return size_of(strength)

        return strength_search.recorded(
            run, name, attempt, 1 / 16, 1e-6, 1.05, known
        )

    straight, first, rest = [], [], []
    found = search("straight.json", straight, [1e-3])
    with pytest.raises(KeyboardInterrupt):
        search("cut.json", first, [1e-3], stop=3)
    # More is known by then, which must not lead elsewhere.
    assert search("cut.json", rest, first) == found
    assert rest == straight and len(straight) > 3
    # Once found it is known, whatever else was tried since.
    assert search("cut.json", [], [], stop=0) == found


def test_next_strength_by_hand():
    assert strength_search.next_strength({1.0: 0.5}, 0.25, 1) == 4.0
    assert strength_search.next_strength({1.0: 0.125}, 0.25, 1) == 0.25
    assert strength_search.next_strength({1.0: 0.9, 4.0: 0.5}, 0.25, 2) == 64.0
    # Halfway between the logarithms of the sizes, and of the strengths.
    middle = strength_search.next_strength({1.0: 0.5, 100.0: 0.125}, 0.25, 1)
    assert middle == pytest.approx(10.0)
    # Not at a trial itself, though its size is nearly right.
    near = strength_search.next_strength({1.0: 0.26, 100.0: 0.01}, 0.25, 1)
    assert near == pytest.approx(100.0**0.1, rel=1e-2)


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
