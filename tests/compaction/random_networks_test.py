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
from tests.helpers.random_shared import SharedNetwork

BACKEND = keras.backend.backend()
# The networks of the suite, by seed. PyTorch takes 0.7 s for one, TensorFlow
# three times as long, and JAX compiles every operation of every shape.
SUITE = {"torch": 300, "tensorflow": 24}.get(BACKEND, 4)
# Those of a slow run, by their number, or by the first and the one behind the
# last: KERAS_BAR_NETWORKS=2500:5000 pytest -m slow <this file>
FIRST, END = map(
    int, f"{SUITE}:{os.environ.get('KERAS_BAR_NETWORKS', 1000)}".split(":")[-2:]
)

pytestmark = pytest.mark.core


def check(seed, kind):
    """Asserts the invariants on the network of a seed: gates that are open
    change nothing; half closed, the compact network equals the hard-pruned
    one, costs what was predicted, and can be gated again."""
    rng = np.random.default_rng(seed)
    model = randomize(kind(seed).draw(), seed)
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


def failures(seeds, kind=Network):
    """Dict from the seed of every network that fails to its error."""
    failed = {}
    for seed in seeds:
        try:
            check(seed, kind)
        except Exception as error:
            if "Nothing in this model can be pruned" in str(error):
                continue  # A matrix of other axes reads all channels.
            failed[seed] = f"{type(error).__name__}: {error}"[:300]
        # Names begin anew. A full garbage collection after every network would
        # take a third of the time; Python's own keep memory bounded.
        keras.backend.clear_session(free_memory=False)
    return failed


def chunks(first, end, size):
    """The ranges of some seeds, for tests of a limited duration."""
    return [range(x, min(x + size, end)) for x in range(first, end, size)]


@pytest.mark.parametrize("seeds", chunks(0, SUITE, 12), ids=str)
def test_invariants(seeds):
    assert not failures(seeds)


@pytest.mark.parametrize("seeds", chunks(0, SUITE // 4, 12), ids=str)
def test_invariants_of_shared_layers(seeds):
    assert not failures(seeds, SharedNetwork)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Network, SharedNetwork])
@pytest.mark.parametrize("seeds", chunks(FIRST, END, 100), ids=str)
def test_invariants_of_many(seeds, kind):
    assert not failures(seeds, kind)
