"""Heads of attention are channels: gated, removed and counted one by one."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize

TOKENS, DIM, HEADS, SIZE = 9, 8, 4, 3
# Multiply-adds of the four projections and the two products of a head.
OF_A_HEAD = 4 * DIM * SIZE * TOKENS + 2 * SIZE * TOKENS**2


def multi_head(**options):
    def attend(x):
        layer = layers.MultiHeadAttention(HEADS, SIZE, name="att", **options)
        return layer(x, x)

    return attend


def causal(x):
    layer = layers.MultiHeadAttention(HEADS, SIZE, dropout=0.1, name="att")
    return layer(x, x, use_causal_mask=True)


def cross(x):
    y = layers.Dense(5, name="context")(x[:, :4])
    return layers.MultiHeadAttention(HEADS, SIZE, name="att")(x, y)


def on_images(x):
    x = layers.Reshape((3, 3, DIM))(x)
    att = layers.MultiHeadAttention(
        HEADS, SIZE, attention_axes=(1, 2), name="att"
    )
    return layers.Reshape((TOKENS, DIM))(att(x, x))


def grouped(x):
    return layers.GroupQueryAttention(SIZE, 2 * HEADS, HEADS, name="att")(x, x)


def split(x, name):
    x = layers.Dense(HEADS * SIZE, name=name)(x)
    return ops.reshape(x, (-1, TOKENS, HEADS, SIZE))


def by_hand(x):
    """As most packages write it: dense layers, reshapes, and matrices."""
    q, k, v = (
        ops.transpose(split(x, name), (0, 2, 1, 3))
        for name in ("query", "key", "value")
    )
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) / SIZE**0.5
    x = ops.matmul(ops.softmax(scores), v)
    x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, TOKENS, HEADS * SIZE))
    return layers.Dense(DIM, name="output")(x)


def fused(x):
    """One dense layer for queries, keys and values."""
    x = layers.Dense(3 * HEADS * SIZE, name="fused")(x)
    q, k, v = (
        ops.reshape(y, (-1, TOKENS, HEADS, SIZE))
        for y in ops.split(x, 3, axis=-1)
    )
    x = ops.dot_product_attention(q, k, v)
    x = ops.reshape(x, (-1, TOKENS, HEADS * SIZE))
    return layers.Dense(DIM, name="output")(x)


def in_one(axes, place=None):
    """One layer and one reshape for all three, as in timm."""

    def attend(x):
        x = layers.Dense(3 * HEADS * SIZE, name="fused")(x)
        x = ops.reshape(x, (-1, TOKENS, 3, HEADS, SIZE))
        x = ops.transpose(x, axes)
        q, k, v = (
            (x[0], x[1], x[2]) if place is None else ops.unstack(x, axis=place)
        )
        weights = ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2)))
        x = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
        x = ops.reshape(x, (-1, TOKENS, HEADS * SIZE))
        return layers.Dense(DIM, name="output")(x)

    return attend


KINDS = {
    "multi_head": multi_head(),
    "no_bias": multi_head(use_bias=False),
    "dropout": multi_head(dropout=0.1),
    "gated": multi_head(use_gate=True),
    "causal": causal,
    "cross": cross,
    "images": on_images,
    "grouped": grouped,
    "by_hand": by_hand,
    "fused": fused,
    "in_one": in_one((0, 3, 2, 1, 4), 2),
    "timm": in_one((2, 0, 3, 1, 4), 0),
    "indexed": in_one((2, 0, 3, 1, 4)),
}


def transformer(attend):
    """One block of a transformer."""
    x = inputs = keras.Input((TOKENS, 5))
    x = layers.Dense(DIM, name="embedding")(x)
    x = layers.Add()([x, attend(layers.LayerNormalization()(x))])
    y = layers.Dense(12, "gelu", name="up")(layers.LayerNormalization()(x))
    x = layers.Add()([x, layers.Dense(DIM, name="down")(y)])
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x))
    return keras.Model(inputs, layers.Dense(3, name="logits")(x))


def gates_of_heads(gated):
    return [
        x
        for x in gated.layers
        if isinstance(x, keras_bar.layers.ChannelGate)
        and x.channels == HEADS
        and x.name != "logits_gate"
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_invariants(kind, tmp_path):
    model = randomize(transformer(KINDS[kind]))
    gated = keras_bar.gate(model, seed=0)
    x = inputs_for(model)
    assert difference(open_gates(gated), model, x) < 1e-5
    (heads,) = gates_of_heads(gated)
    close_gates(gated, seed=4)
    assert 0 < heads.alive().sum() < HEADS
    _, small = assert_invariants(
        gated, connectivities=BOTH, path=tmp_path / "small.keras"
    )
    assert not keras_bar.measure_cost(small).uncounted


@pytest.mark.core
@pytest.mark.parametrize("kind", ["multi_head", "dropout", "by_hand"])
def test_on_every_backend(kind):
    gated = keras_bar.gate(randomize(transformer(KINDS[kind])), seed=0)
    (heads,) = gates_of_heads(gated)
    heads.set_alive(np.arange(HEADS) == 1)
    small = keras_bar.compact(gated, allow_unfinished=True)
    x = inputs_for(gated)
    assert (
        difference(keras_bar.hard_prune(gated, allow_unfinished=True), small, x)
        < 1e-5
    )


@pytest.mark.parametrize("kind", ["by_hand", "fused", "timm", "dropout"])
def test_every_way_to_write_a_head_costs_the_same(kind):
    gated = keras_bar.gate(transformer(KINDS[kind]), seed=0)
    full = keras_bar.measure_cost(gated)
    (heads,) = gates_of_heads(gated)
    heads.set_alive(np.arange(HEADS) == 2)
    for pruned in (gated, keras_bar.compact(gated, allow_unfinished=True)):
        rest = keras_bar.measure_cost(pruned)
        assert full.flops - rest.flops == 2 * (HEADS - 1) * OF_A_HEAD


def test_a_head_costs_its_projections_and_products():
    """Hand arithmetic, with one head of four."""
    model = transformer(multi_head(use_bias=False))
    gated = keras_bar.gate(model, seed=0)
    full = keras_bar.measure_cost(gated)
    (heads,) = gates_of_heads(gated)
    heads.set_alive(np.arange(HEADS) == 2)
    rest = keras_bar.measure_cost(gated)
    removed = HEADS - 1
    assert full.flops - rest.flops == 2 * removed * OF_A_HEAD
    assert full.params - rest.params == removed * 4 * DIM * SIZE
    assert full.volume - rest.volume == removed * 3 * TOKENS * SIZE


def test_a_branch_without_heads_vanishes():
    gated = keras_bar.gate(randomize(transformer(multi_head())), seed=0)
    close_gates(gated, dead=("att_value_gate",))
    _, small = assert_invariants(gated)
    names = [x.name for x in small.layers]
    assert not any("query" in x or "key" in x or "value" in x for x in names)


def test_a_pruned_model_is_pruned_again():
    gated = keras_bar.gate(randomize(transformer(multi_head())), seed=0)
    close_gates(gated, seed=1)
    small = keras_bar.compact(gated)
    (first,) = gates_of_heads(gated)
    again = keras_bar.gate(small, seed=0)
    (second,) = [x for x in again.layers if x.name == "att_value_gate"]
    assert second.channels == first.alive().sum()
    close_gates(again, seed=2)
    assert_invariants(again)


def test_the_names_tell_where_a_layer_was():
    explanation = keras_bar.explain(transformer(multi_head()))
    assert "att_value" in explanation.gated
    assert "att_query" not in explanation.gated
    assert not explanation.boundaries.keys() & {"att", "att_query"}


def test_attention_is_skipped_by_its_name():
    gated = keras_bar.gate(transformer(multi_head()), skip="att")
    assert not any("att" in x.name for x in gates_of(gated))
    assert gated.get_layer("up_gate")


def test_attention_that_keras_itself_cannot_infer_stays_whole():
    model = transformer(multi_head(value_dim=2))
    (why,) = (x.opaque for x in trace.trace(model).nodes if x.name == "att")
    assert "its values differ in size from its keys" in why
    gated = close_gates(keras_bar.gate(randomize(model), seed=0))
    assert_invariants(gated)


def test_the_model_itself_is_unchanged():
    """Its attention still knows tokens of any number."""
    inputs = keras.Input((None, DIM))
    attention = layers.MultiHeadAttention(HEADS, SIZE, name="att")
    y = layers.Dense(DIM)(layers.Add()([inputs, attention(inputs, inputs)]))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(y))
    before = model(np.ones((1, 7, DIM), "float32"))
    gated = keras_bar.gate(model)
    for tokens in (7, 4):
        x = np.ones((2, tokens, DIM), "float32")
        assert difference(open_gates(gated), model, x) < 1e-5
    np.testing.assert_array_equal(
        *map(ops.convert_to_numpy, (before, model(np.ones((1, 7, DIM)))))
    )
    assert model.get_layer("att") is attention
