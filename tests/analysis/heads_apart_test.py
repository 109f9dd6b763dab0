"""Attention whose heads are put beside the samples of the batch."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import heads_apart
from keras_bar.analysis import trace
from tests.helpers.one_layer import prune

pytestmark = pytest.mark.core

HEADS, SIZE, WIDTH = 3, 4, 12


class Relative(layers.Layer):
    """Adds products of queries and a table of relative positions."""

    def build(self, shape):
        self.table = self.add_weight((7, SIZE), "random_normal", name="table")

    def call(self, scores, queries=None):
        count = ops.shape(queries)[0]
        index = np.arange(4)[:, None] - np.arange(4) + 3
        rows = ops.reshape(queries, (count, 2, 2, SIZE))
        table = ops.reshape(ops.take(self.table, index, 0), (2, 2, 4, SIZE))
        more = ops.einsum("bhwc,hwkc->bhwk", rows, table)
        scores = ops.reshape(scores, (count, 2, 2, 4))
        return ops.reshape(scores + more, (count, 4, 4))


class Attention(layers.Layer):
    """Attention of the four places of an image."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.qkv = layers.Dense(3 * WIDTH, name="qkv")
        self.relative = Relative(name="relative")
        self.dropout = layers.Dropout(0.1)
        self.out = layers.Dense(WIDTH, name="out")

    def build(self, shape):
        self.qkv.build(shape)
        self.relative.build(None)
        self.out.build(shape)

    def call(self, x, training=None):
        count = ops.shape(x)[0]
        x = ops.reshape(self.qkv(x), (count, 4, 3, HEADS, SIZE))
        x = ops.transpose(x, (2, 0, 3, 1, 4))
        x = ops.reshape(x, (3, count * HEADS, 4, SIZE))
        q, k, v = ops.unstack(x, axis=0)
        scores = ops.matmul(q / 2, ops.transpose(k, (0, 2, 1)))
        weights = ops.softmax(self.relative(scores, queries=q), axis=-1)
        weights = self.dropout(weights, training=training)
        x = ops.reshape(ops.matmul(weights, v), (count, HEADS, 2, 2, SIZE))
        x = ops.transpose(x, (0, 2, 3, 1, 4))
        return self.out(ops.reshape(x, (count, 2, 2, WIDTH)))


def attention():
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(WIDTH, 2, 2, name="patches")(inputs)
    x = x + Attention(name="attention")(x)
    x = layers.Dense(8, "relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(2)(ops.mean(x, axis=(1, 2))))


def test_heads_are_pruned(tmp_path):
    keras.utils.set_random_seed(0)
    model = attention()
    assert not [x.opaque for x in trace.trace(model).nodes if x.opaque]
    gated, _, small = prune(model, path=tmp_path / "small.keras")
    names = {*keras_bar.explain(gated).gated}
    assert names == {
        *("patches", "hidden", "attention_matmul_1", "attention_out")
    }
    heads = gated.get_layer("attention_matmul_1_gate")
    assert heads.channels == HEADS
    left = int(heads.alive().sum())
    assert small.get_layer("attention_qkv").units == 3 * SIZE * left


def test_flops_are_those_of_all_heads():
    rows = {x.name: x for x in keras_bar.measure_cost(attention()).layers}
    for name in ("attention_matmul", "attention_matmul_1"):
        assert rows[name].flops == 2 * 4 * 4 * SIZE * HEADS
    assert rows["attention_relative_einsum"].flops == 2 * 4 * 4 * SIZE * HEADS


def joined(rank=3):
    """An input, and its heads beside the samples."""
    x = keras.Input((HEADS, 4, SIZE)[: rank + 1])
    return x, ops.reshape(x, (-1, 4, SIZE))


def split(x):
    return ops.reshape(x, (-1, HEADS, *x.shape[1:]))


APART = {
    "transpose": lambda x: ops.transpose(
        ops.transpose(x, (2, 1, 0)), (2, 0, 1)
    ),
    "expand": lambda x: ops.expand_dims(x, 1)[..., 0],
    "factor": lambda x: x * np.arange(SIZE, dtype="float32") + 1.0,
    "own": lambda x: x * ops.cast(x - 2.0 * x, "float32"),
    "sum": lambda x: ops.einsum("ijk,ilk->ijl", x, x),
    "positive": lambda x: ops.softmax(x, axis=1),
    "layer": lambda x: layers.Softmax()(x),
}
BESIDE = {
    "cumulated": lambda x: ops.cumsum(x, axis=1),
    "constant": lambda x: ops.einsum(
        "ijk,lk->ijl", x, np.eye(SIZE, dtype="float32")
    ),
    "over_samples": lambda x: ops.einsum("ijk,ilm->jk", x, x) + x,
    "dense": lambda x: layers.Dense(SIZE, use_bias=False)(x),
}


@pytest.mark.parametrize("name", [*APART, *BESIDE])
def test_operations_in_between(name):
    """The same numbers; heads stay apart unless an operation forbids it."""
    keras.utils.set_random_seed(0)
    inputs, x = joined()
    weights = ops.softmax({**APART, **BESIDE}[name](x), axis=-1)
    x = ops.matmul(weights, ops.transpose(x, (0, 2, 1)))
    model = keras.Model([inputs], [split(ops.tanh(x))])
    found = heads_apart.apart(model, lambda node: None)
    array = np.random.default_rng(0).normal(size=(2, HEADS, 4, SIZE))
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(m(array)) for m in (found, model)), atol=1e-6
    )
    assert (found is model) == (name in BESIDE)


def test_a_graph_without_attention_stays_as_it_is():
    inputs, x = joined()
    model = keras.Model([inputs], [split(ops.softmax(2.0 * x))])
    assert heads_apart.apart(model, lambda node: None) is model
