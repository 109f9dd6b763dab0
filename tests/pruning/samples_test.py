"""The samples to refit to, from whatever `fit` takes."""

import keras
import numpy as np
import pytest

from keras_bar.analysis.trace import trace
from keras_bar.pruning import samples

X = np.random.default_rng(0).normal(size=(700, 4)).astype("float32")
Y = np.arange(700)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        part = slice(70 * index, 70 * index + 70)
        return X[part], Y[part]


def graph_of(*shapes):
    """The graph of a model whose inputs are named in reverse order."""
    names = "zyx"[: len(shapes)]
    inputs = [
        keras.Input(x, name=n) for x, n in zip(shapes, names, strict=True)
    ]
    outputs = keras.layers.Concatenate()(inputs) if len(inputs) > 1 else None
    outputs = keras.layers.Dense(1)(inputs[0] if outputs is None else outputs)
    return trace(keras.Model(inputs, outputs))


def tf_data():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(70)


def torch_loader():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    return torch.utils.data.DataLoader(data, batch_size=70)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Batches(), id="PyDataset"),
        pytest.param(lambda: iter([(X[:300],), (X[300:],)]), id="generator"),
        pytest.param(lambda: [X[:300], X[300:600]], id="list of batches"),
        pytest.param(tf_data, id="tf.data"),
        pytest.param(torch_loader, id="torch"),
    ],
)
def test_batches_give_their_first_samples(make):
    (found,) = samples.take(make(), graph_of((4,)))
    np.testing.assert_array_equal(found, X[: samples.SAMPLES])


def test_arrays_give_a_draw_of_all():
    (found,) = samples.take(X, graph_of((4,)))
    rows = {tuple(x) for x in X}
    assert len(found) == samples.SAMPLES
    assert {tuple(x) for x in found} < rows
    assert not np.array_equal(found, X[: samples.SAMPLES])


@pytest.mark.parametrize("data", [[X, 2 * X], {"y": 2 * X, "z": X}])
def test_several_inputs_stay_together(data):
    """A dict is read by the names of the inputs, not in their order."""
    first, second = samples.take(data, graph_of((4,), (4,)))
    np.testing.assert_array_equal(2 * first, second)


@pytest.mark.parametrize("count", [300, 700])
def test_a_pair_is_inputs_and_targets(count):
    (found,) = samples.take((X[:count], Y[:count]), graph_of((4,)))
    (wanted,) = samples.take(X[:count], graph_of((4,)))
    np.testing.assert_array_equal(found, wanted)


def test_nan_is_refused():
    broken = np.where(np.arange(len(X))[:, None] == 5, np.nan, X)
    with pytest.raises(ValueError, match="not finite"):
        samples.take(broken[:100], graph_of((4,)))


@pytest.mark.parametrize(
    "data",
    [
        X[:0],
        X[:, :3],
        [],
        7,
        [(Y[:5], X[:5])],
        "images",
    ],
    ids=["empty", "shape", "no batches", "number", "targets first", "text"],
)
def test_what_is_no_input_is_refused(data):
    with pytest.raises(ValueError, match="do not fit its inputs"):
        samples.take(data, graph_of((4,)))
