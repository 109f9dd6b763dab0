"""The search for the strength of a penalty."""

import math

import pytest

from keras_bar import baselines
from keras_bar.baselines import strength_search


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

    strength = baselines.find_strength(attempt, 1 / factor, start)
    assert strength in tried
    assert len(tried) <= 7
    assert abs(math.log(size_of(strength) * factor)) <= math.log(1.2)


def test_the_nearest_where_none_is_near():
    """Sizes that jump past the target."""
    strength = baselines.find_strength(
        lambda x: 1.0 if x < 3.0 else 0.01, 0.1, 1.0
    )
    assert strength < 3.0  # A factor of 10 either way: the first one stays.


def test_near_enough_is_enough():
    assert baselines.find_strength(lambda x: 0.24, 0.25, 1.0) == 1.0
    tried = []
    found = baselines.find_strength(
        lambda x: tried.append(x) or 0.2, 0.25, 1.0, near=1.5
    )
    assert found == 1.0 and tried == [1.0]


def test_what_is_known_is_not_searched_for_again():
    tried = []

    def attempt(strength):
        tried.append(strength)
        return size_of(strength)

    known = [1e-5, 1e-3]
    first = baselines.find_strength(attempt, 1 / 4, 1e-2, known=known)
    assert set(tried[:2]) == set(known) and 1e-5 < min(tried[2:]) < 1e-3
    tried.clear()
    again = baselines.find_strength(attempt, 1 / 4, 1e-2, known=[*known, first])
    assert again == first and len(tried) == 3


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
