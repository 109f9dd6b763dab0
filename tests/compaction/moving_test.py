"""Channels moved by operations of Keras that multiply nothing."""

import keras
import numpy as np
import pytest

from keras_bar.compaction.moving import MOST_PADS
from keras_bar.compaction.moving import ZERO
from keras_bar.compaction.moving import Mover
from keras_bar.layers.mixed_residual import _runs

pytestmark = pytest.mark.core

CHANNELS = 9


def run(move, count, rank, axis):
    """What a movement makes of an array, channels last; and the model."""
    sizes = [2, 3, 4][: rank - 2]
    array = np.random.default_rng(0).normal(size=(2, *sizes, count))
    array = array.astype("float32")
    moved = np.moveaxis(array, -1, axis)
    inputs = keras.Input(moved.shape[1:])
    names = iter(range(100))
    mover = Mover(lambda name: f"{name}_{next(names)}")
    terms = move(mover, inputs, axis % rank)
    model = keras.Model(inputs, terms)
    parts = keras.tree.flatten(model(moved))
    result = sum(map(keras.ops.convert_to_numpy, parts))
    return array, np.moveaxis(result, axis, -1), model


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    "places",
    [
        range(9),
        [0, 1, 2],
        [4, 5, 6],
        [0, 1, 5, 8],
        [0, 2, 4, 6],
        [8, 0, 3],
        [8, 6, 4, 2, 0],
        [7],
    ],
)
def test_spread(places, axis, rank):
    array, found, model = run(
        lambda mover, x, i: mover.spread(x, places, CHANNELS, i, "sum"),
        len(places),
        rank,
        axis,
    )
    expected = np.zeros((*array.shape[:-1], CHANNELS))
    expected[..., list(places)] = array
    np.testing.assert_array_equal(found, expected)
    kinds = [type(x).__name__ for x in model.operations]
    scattered = len(_runs(list(places), CHANNELS)) > MOST_PADS
    assert ("Take" in kinds) == scattered
    assert {*kinds} <= {"InputLayer", "GetItem", "Pad", "Take", "Transpose"}


@pytest.mark.parametrize("rank", [2, 4])
@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize(
    "source",
    [
        range(5),
        [1, 2, 3],
        [ZERO, 3, 4, ZERO],
        [3, 0, 4],
        [ZERO, 3, ZERO, 1, 0],
        [ZERO, ZERO],
    ],
)
def test_gather(source, axis, rank):
    array, found, _ = run(
        lambda mover, x, i: [mover.gather(x, source, i, "some")], 5, rank, axis
    )
    zeros = np.zeros((*array.shape[:-1], 1))
    padded = np.concatenate([array, zeros], axis=-1)
    np.testing.assert_array_equal(found, padded[..., list(source)])


def test_transpositions_cancel():
    """What is moved twice is transposed once."""
    _, _, model = run(
        lambda mover, x, i: [
            mover.gather(
                mover.gather(x, [4, 2, 0, 1, 3], i, "a"), [3, 0, 2], i, "b"
            )
        ],
        5,
        4,
        -1,
    )
    kinds = [type(x).__name__ for x in model.operations]
    assert kinds.count("Transpose") == 2 and kinds.count("Take") == 2
