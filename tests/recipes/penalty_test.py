"""Penalties of constant strength, and the search for it."""

import argparse

import pytest

from keras_bar import baselines
from keras_bar import runs
from recipes.methods import morphnet
from recipes.methods import penalty


def size_of(strength):
    """Falls from 1, by a power of the strength."""
    return 1.0 / (1.0 + (strength / 1e-4) ** 0.7)


@pytest.mark.parametrize("factor", [2, 4, 8, 16])
def test_what_is_expanded_was_shrunk_to_less(factor):
    """Not to more than the budget, or expanding it would shrink it further."""
    method = morphnet.PENALTY
    assert method.expanded
    target = method.aim / factor
    found = baselines.find_strength(
        size_of, target, method.strength, method.near
    )
    assert 0.5 / factor <= size_of(found) <= 1 / factor


def test_an_interrupted_search_goes_the_same_way(tmp_path, monkeypatch):
    """Networks are their size here."""
    key = argparse.Namespace(metric="volume", factor=16)
    experiment = argparse.Namespace(key=key, teacher=lambda: 1.0)
    experiment.other = lambda seed: experiment
    monkeypatch.setattr(penalty, "measure", lambda size, metric: size)

    def search(folder, tried, known, stop=None):
        run = runs.Run(tmp_path / folder, {})
        run.done = lambda prefix: map(str, known)

        def shrink(self, experiment, teacher, strength):
            if len(tried) == stop:
                raise KeyboardInterrupt
            tried.append(strength)
            return size_of(strength)

        monkeypatch.setattr(penalty.Penalty, "place", lambda *_: run)
        monkeypatch.setattr(penalty.Penalty, "shrink", shrink)
        method = penalty.Penalty("lzr", None, 1e-6, near=1.05)
        return method.find_strength(experiment)

    straight, first, rest = [], [], []
    found = search("straight", straight, [1e-3])
    with pytest.raises(KeyboardInterrupt):
        search("cut", first, [1e-3], stop=3)
    # More is known by then, which must not lead elsewhere.
    assert search("cut", rest, first) == found
    assert rest == straight and len(straight) > 3
    # Once found it is known, whatever else was tried since.
    assert search("cut", [], [], stop=0) == found
