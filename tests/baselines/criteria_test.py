"""Criteria: their scores, what they refuse, and the networks they leave."""

import re
import textwrap

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar.baselines import criteria
from keras_bar.layers import MarkerGate
from tests.helpers import pruning

pytestmark = pytest.mark.core


def images(count=12, shape=(8, 8, 3)):
    rng = np.random.default_rng(0)
    return rng.normal(size=(count, *shape)).astype("float32")


def residual():
    """Three residual streams and what is between, as after training."""
    return pruning.randomize(keras_bar.models.WideResNet(10, 0.5, (8, 8, 3)))


@pytest.fixture(scope="module")
def network():
    """A model that no test changes."""
    return residual()


def joined():
    """A concatenation reads the channels of `a`."""
    inputs = keras.Input((8, 8, 3))
    x, y = (layers.Conv2D(4, 3, name=name)(inputs) for name in "ab")
    x = layers.GlobalAveragePooling2D()(layers.Concatenate()([x, y]))
    return pruning.randomize(keras.Model(inputs, layers.Dense(2)(x)))


def examples():
    """The functions in the text at the head of `criteria`."""
    blocks = re.findall(r"(?:^    .*\n|^\n)+", criteria.__doc__, re.MULTILINE)
    space = {"np": np, "images": images()}
    for block in blocks:
        exec(textwrap.dedent(block), space)
    return {x: space[x] for x in ("largest_weight", "strongest_activity")}


@pytest.mark.parametrize(
    ("name", "make", "connectivity"),
    [
        ("largest_weight", residual, "regular"),
        ("strongest_activity", residual, "mixed"),
        ("strongest_activity", joined, "regular"),
        ("largest_weight", joined, "mixed"),
    ],
)
def test_examples_of_the_text(name, make, connectivity):
    criterion = examples()[name]
    model = make()
    seen, _ = pruning.asked(model, criterion, connectivity=connectivity)
    read = [bool(x.activations(images())) for x in seen.values()]
    assert any(read) == (make is residual)
    assert all(read) == (make is residual and connectivity == "regular")


def alike():
    """Filters of one distribution of norms, whatever layer they are in."""
    model = keras_bar.models.WideResNet(14, 1, (8, 8, 3))
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D):
            shape = tuple(layer.kernel.shape)
            kernel = rng.normal(size=shape)
            norms = np.sqrt(np.square(kernel).sum((0, 1, 2)))
            layer.kernel.assign(
                kernel / norms * rng.uniform(0.5, 1.5, shape[-1])
            )
    return model


@pytest.mark.parametrize(
    "criterion", [baselines.weight_magnitude, baselines.VectorQuantization()]
)
def test_scores_do_not_grow_with_the_number_of_writers(criterion):
    seen, scores = pruning.asked(alike(), criterion)
    # Every score in units of what a single convolution's is.
    size = {name: np.mean(x[np.isfinite(x)]) for name, x in scores.items()}
    single = np.mean([size[x] for x in size if len(seen[x].filters) == 1])
    streams = [x for x in size if len(seen[x].filters) > 1]
    assert {len(seen[x].filters) for x in streams} == {3}
    for name in streams:
        assert size[name] == pytest.approx(single, rel=0.3)


def test_comparing_layers_takes_channels_of_streams_too():
    model = alike()
    small = baselines.prune(
        model, baselines.weight_magnitude, 0.5, scope="global"
    )
    kept = {
        x.name: x.filters / model.get_layer(x.name).filters
        for x in small.layers
        if isinstance(x, layers.Conv2D)
    }
    assert len(kept) == 16
    assert all(0.2 < x < 0.9 for x in kept.values()), kept


def test_decompositions_are_compared_by_relative_accuracy(network):
    """Scale and number of channels that are read do not matter."""
    model = network
    for inputs in (images(), None):
        criterion = baselines.InterpolativeDecomposition(inputs)
        _, scores = pruning.asked(model, criterion)
        for x in scores.values():
            assert x.max() == pytest.approx(1.0)
            assert x.min() >= 0.0


def test_a_layer_of_zeros_has_scores():
    model = joined()
    kernel = model.get_layer("a").kernel
    kernel.assign(np.zeros(kernel.shape))
    criterion = baselines.InterpolativeDecomposition()
    _, scores = pruning.asked(model, criterion)
    np.testing.assert_array_equal(scores["a"], 0.0)


def by_hand(model, strength):
    """Closes the weaker half of every gate, and prunes without the criteria.

    Args:
        model: `residual()`.
        strength: Function of the gate's number and the kernels of its writers
            that returns what is strongest.
    """
    gated = keras_bar.gate(model, connectivity="regular", layer=MarkerGate)
    writers = {"stem_conv": ["stem_conv"]}
    for group in ("group1", "group2", "group3"):
        name = f"{group}_block1"
        writers[f"{name}_shortcut"] = [f"{name}_shortcut", f"{name}_conv2"]
        writers[f"{name}_conv1"] = [f"{name}_conv1"]
    for number, gate in enumerate(pruning.gates_of(gated)):
        names = writers.pop(gate.name.removesuffix("_gate"))
        kernels = [model.get_layer(x).kernel for x in names]
        found = strength(number, [ops.convert_to_numpy(x) for x in kernels])
        gate.set_alive(found >= np.median(found))
    assert not writers
    return gated


def norm(number, kernels):
    return sum(np.square(x).sum((0, 1, 2)) for x in kernels)


def drawn(number, kernels):
    rng = np.random.default_rng([3, number])
    return rng.random(kernels[0].shape[-1])


@pytest.mark.parametrize(
    ("criterion", "strength"),
    [(baselines.weight_magnitude, norm), (baselines.random_scores(3), drawn)],
    ids=["wm", "random"],
)
def test_pruning_is_closing_gates_by_hand(criterion, strength, tmp_path):
    """Invariants I1, I2 and I4 of the gates, and the same network."""
    model = residual()
    gated = by_hand(model, strength)
    hard, _ = pruning.assert_invariants(
        gated, ["regular"], path=tmp_path / "small.keras"
    )
    small = baselines.prune(model, criterion, 0.5)
    assert pruning.difference(small, hard, images()) < 1e-4


class Merging:
    """Keeps the first channels, and merges as told."""

    def __init__(self, merge):
        self.merge = merge

    def __call__(self, channels):
        return np.arange(channels.size)[::-1]


def zeros(channels, kept):
    return np.zeros((len(kept), channels.size))


def with_readers(make):
    """The `merge` of a criterion, each of whose matrices is made so."""
    return lambda c, kept: baselines.Merge([make(c, kept)] * c.reader_count)


def with_writers(make):
    return lambda c, kept: baselines.Merge(
        [zeros(c, kept)] * c.reader_count, make(c, kept)
    )


def too_wide(channels, kept):
    return zeros(channels, kept).T


def infinite(channels, kept):
    return zeros(channels, kept) + np.inf


def nan(channels, kept):
    return zeros(channels, kept) * np.nan


@pytest.mark.parametrize(
    ("merge", "received"),
    [
        (lambda c, kept: None, "an object of type NoneType"),
        (lambda c, kept: [zeros(c, kept)], "an object of type list"),
        (lambda c, kept: baselines.Merge([]), "0 matrices"),
        (with_readers(too_wide), r"a matrix of shape \(\d+, \d+\)"),
        (with_readers(nan), "infinite values or NaN"),
        (with_readers(infinite), "infinite values or NaN"),
        (with_writers(too_wide), r"a matrix of shape \(\d+, \d+\)"),
        (with_writers(nan), "infinite values or NaN"),
    ],
)
def test_merges_that_do_not_fit(network, merge, received):
    with pytest.raises(
        ValueError, match=rf"does not fit. Expected.* Received: .*{received}"
    ):
        baselines.prune(network, Merging(merge), 0.6)


class Pairs(keras.utils.PyDataset):
    """Batches, as `fit` takes them."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return images(), np.zeros(12)


@pytest.mark.parametrize(
    "inputs",
    [Pairs(), "images", [], [[0.0, 1.0]], [images(3), images(4)]],
    ids=["dataset", "string", "empty", "numbers", "samples"],
)
def test_inputs_that_are_no_arrays(inputs):
    with pytest.raises(
        ValueError, match=r"Invalid inputs.* Expected.* Received: \w+"
    ):
        baselines.InterpolativeDecomposition(inputs)


def test_a_dataset_is_no_array():
    data = pytest.importorskip("tensorflow").data
    dataset = data.Dataset.from_tensor_slices(images()).batch(4)
    with pytest.raises(ValueError, match="Received: _BatchDataset"):
        baselines.InterpolativeDecomposition(dataset)


@pytest.mark.parametrize(
    ("inputs", "match"),
    [
        (list(images()), r"Received: 12 of shapes \[\(8, 8, 3\)"),
        (images()[0], r"Received: 1 of shapes \[\(8, 8, 3\)"),
        (images(shape=(8, 8, 1)), r"Received: 1 of shapes \[\(12, 8, 8, 1"),
        ([images()] * 2, r"Received: 2 of shapes"),
        (images(0), "at least one sample"),
    ],
    ids=["list", "one", "grey", "two", "none"],
)
def test_inputs_that_the_model_does_not_take(network, inputs, match):
    criterion = baselines.InterpolativeDecomposition(inputs)
    with pytest.raises(ValueError, match=match) as error:
        baselines.prune(network, criterion, 0.5)
    assert "Expected" in str(error.value)
