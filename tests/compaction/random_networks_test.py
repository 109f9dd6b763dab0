"""The invariants hold on random networks."""

import os

import keras
import numpy as np
import pytest

import keras_bar
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize
from tests.helpers.pruning import recalibrate
from tests.helpers.random_networks import Network

# Networks of a slow run: KERAS_BAR_NETWORKS=10000 pytest -m slow <this file>
COUNT = int(os.environ.get("KERAS_BAR_NETWORKS", "300"))
FAST = 8


def check(seed):
    """Asserts the invariants on the network of a seed: gates that are open
    change nothing; half closed, the compact network equals the hard-pruned
    one, costs what was predicted, and can be gated again."""
    rng = np.random.default_rng(seed)
    model = randomize(Network(seed).draw(), seed)
    gated = keras_bar.gate(model, connectivity=BOTH[rng.integers(2)], seed=seed)
    x = inputs_for(model)
    assert difference(open_gates(gated), model, x) < 1e-4
    close(gated, seed, share=rng.uniform(0.2, 0.8))
    _, small = assert_invariants(gated, connectivities=BOTH)
    again = keras_bar.gate(small)
    assert difference(open_gates(again), small, x) < 1e-4


def close(gated, seed, share):
    """Closes a share of the channels, or less where too little would be left
    for the output to vary."""
    while True:
        close_gates(gated, seed, share)
        try:
            recalibrate(gated)
        except AssertionError:
            share /= 2
            if share > 0.02:
                continue
        return


@pytest.mark.parametrize("seed", range(FAST))
def test_invariants(seed):
    check(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST, COUNT, 100))
def test_invariants_of_many(first):
    failed = {}
    for seed in range(first, min(first + 100, COUNT)):
        try:
            check(seed)
        except Exception as error:  # All are reported, with their seeds.
            failed[seed] = f"{type(error).__name__}: {error}"[:300]
        keras.backend.clear_session()
    assert not failed
