"""Features that all heads of attention have in common are gated, too."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from tests.analysis.rules.attention_test import DIM
from tests.analysis.rules.attention_test import HEADS
from tests.analysis.rules.attention_test import KINDS
from tests.analysis.rules.attention_test import SIZE
from tests.analysis.rules.attention_test import TOKENS
from tests.analysis.rules.attention_test import multi_head
from tests.analysis.rules.attention_test import split
from tests.analysis.rules.attention_test import transformer
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import outputs_of
from tests.helpers.pruning import randomize
from tests.helpers.pruning import set_gate


def einsums(x):
    """Attention by equations, which Keras's own layer would not write."""
    q, k, v = (
        layers.EinsumDense(
            f"{front}c,cde->{front}de",
            (*sizes, HEADS, SIZE),
            bias_axes="de",
            name=name,
        )(x)
        for name, front, sizes in (
            ("query", "ab", [TOKENS]),
            ("key", "...", []),
            ("value", "...b", [TOKENS]),
        )
    )
    scores = ops.einsum("bqhd,bkhd->bhqk", q * SIZE**-0.5, k)
    x = ops.einsum("bhqk,bkhd->bqhd", ops.softmax(scores), v)
    return layers.EinsumDense(
        "abcd,cde->abe", (TOKENS, DIM), bias_axes="e", name="output"
    )(x)


class Capitals(layers.Layer):
    """Attention by equations in capital letters, which Keras does not take of
    symbolic tensors."""

    def call(self, q, k, v):
        weights = ops.softmax(ops.einsum("BTNH,BSNH->BNTS", q, k))
        return ops.einsum("BNTS,BSNH->BTNH", weights, v)


def capitals(x):
    x = Capitals()(*(split(x, name) for name in ("query", "key", "value")))
    x = ops.reshape(x, (-1, TOKENS, HEADS * SIZE))
    return layers.Dense(DIM, name="output")(x)


def heads_first(x):
    """Heads in front of the positions, and a mask by `where`."""
    q, k, v = (
        layers.EinsumDense(
            "btd,dhe->bhte", (HEADS, None, SIZE), bias_axes="he", name=name
        )(x)
        for name in ("query", "key", "value")
    )
    scores = ops.einsum("bhqe,bhke->bhqk", q, k)
    mask = np.tril(np.ones((TOKENS, TOKENS), bool))
    weights = ops.softmax(ops.where(mask[None, None], scores, -1e9))
    return layers.EinsumDense(
        "bhte,hed->btd", (None, DIM), bias_axes="d", name="output"
    )(ops.einsum("bhqk,bhke->bhqe", weights, v))


def masked(x):
    mask = np.random.default_rng(0).random((1, TOKENS, TOKENS)) > 0.3
    mask |= np.eye(TOKENS, dtype=bool)
    layer = layers.MultiHeadAttention(HEADS, SIZE, name="att")
    return layer(x, x, attention_mask=ops.convert_to_tensor(mask))


def causal(x):
    layer = layers.MultiHeadAttention(HEADS, SIZE, name="att")
    return layer(x, x, use_causal_mask=True)


def keys_as_values(x):
    q, k = (ops.transpose(split(x, n), (0, 2, 1, 3)) for n in ("q", "k"))
    scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
    x = ops.transpose(ops.matmul(ops.softmax(scores), k), (0, 2, 1, 3))
    x = ops.reshape(x, (-1, TOKENS, HEADS * SIZE))
    return layers.Dense(DIM, name="output")(x)


ATTENTIONS = {
    **{x: KINDS[x] for x in ("multi_head", "no_bias", "dropout", "cross")},
    **{x: KINDS[x] for x in ("grouped", "images", "by_hand", "fused")},
    "einsums": einsums,
    "capitals": capitals,
    "heads_first": heads_first,
    "masked": masked,
    "causal": causal,
    "keys_as_values": keys_as_values,
}


def widths_of(gated):
    return [x for x in gates_of(gated) if "_width_gate" in x.name]


def closed(gated, seed=1):
    """Closes random channels, and one width of every three."""
    close_gates(gated, seed=seed)
    for x in widths_of(gated):
        set_gate(x, np.array([1.3, -5.0, 0.2][: x.channels]))
        assert x.alive().sum() == min(2, x.channels - 1)
    return gated


def gate(kind, seed=0):
    return keras_bar.gate(randomize(transformer(ATTENTIONS[kind])), seed=seed)


@pytest.mark.core
@pytest.mark.parametrize("kind", ATTENTIONS)
def test_invariants(kind, tmp_path):
    gated = gate(kind)
    count = 1 if kind == "keys_as_values" else 2
    assert [x.channels for x in widths_of(gated)] == [SIZE] * count
    assert_invariants(closed(gated), BOTH, path=tmp_path / "small.keras")


def test_a_width_costs_its_part_of_all_heads():
    """Hand arithmetic: of 4 heads 3 are left, of 3 features 2 in the queries
    and keys and 1 in the values."""
    gated = gate("no_bias")
    full = keras_bar.measure_cost(gated)
    for name, kept in (
        ("att_value_gate", 3),
        ("att_query_width_gate", 2),
        ("att_value_width_gate", 1),
    ):
        layer = gated.get_layer(name)
        layer.set_alive(np.arange(layer.channels) < kept)
    rest = keras_bar.measure_cost(gated)

    def features(heads, widths, values):
        """Of queries, of keys, of values, and of what attention gives."""
        return heads * (2 * widths + 2 * values)

    def multiply_adds(heads, widths, values):
        projections = TOKENS * DIM * features(heads, widths, values)
        return projections + heads * (widths + values) * TOKENS**2

    removed = multiply_adds(HEADS, SIZE, SIZE) - multiply_adds(3, 2, 1)
    assert full.flops - rest.flops == 2 * removed
    removed = features(HEADS, SIZE, SIZE) - features(3, 2, 1)
    assert full.params - rest.params == DIM * removed
    removed = HEADS * 3 * SIZE - 3 * (2 + 2 + 1)
    assert full.volume - rest.volume == TOKENS * removed


def test_the_scale_of_the_full_width_stays():
    """The compact layer divides by the root of the old number of features."""
    model = transformer(multi_head())
    gated = keras_bar.gate(randomize(model), seed=0)
    gated.get_layer("att_query_width_gate").set_alive(np.arange(SIZE) < 1)
    x = inputs_for(gated)
    expected = outputs_of(gated, x)
    small = keras_bar.compact(gated, allow_unfinished=True)
    assert small.get_layer("att_query").kernel.shape == (DIM, HEADS, 1)
    assert small.get_layer("att_key").kernel.shape == (DIM, HEADS, 1)
    assert small.get_layer("att_value").kernel.shape == (DIM, HEADS, SIZE)
    np.testing.assert_allclose(outputs_of(small, x), expected, atol=1e-5)


@pytest.mark.core
@pytest.mark.parametrize("kind", ["multi_head", "dropout", "by_hand", "causal"])
def test_without_queries_every_position_counts_the_same(kind):
    gated = gate(kind)
    (gone,) = [x for x in widths_of(gated) if "value" not in x.name][:1]
    close_gates(gated, seed=1, dead=(gone.name,))
    _, small = assert_invariants(gated)
    names = {x.name for x in small.layers}
    assert not {"att_query", "att_key", "query", "key"} & names


def test_a_branch_without_widths_of_values_vanishes():
    gated = close_gates(gate("multi_head"), dead=("att_value_width_gate",))
    _, small = assert_invariants(gated)
    assert not any("att" in x.name for x in small.layers)


def test_a_pruned_model_is_pruned_again():
    small = keras_bar.compact(closed(gate("multi_head")))
    again = keras_bar.gate(small, seed=0)
    assert [x.channels for x in widths_of(again)] == [2, 2]
    assert_invariants(closed(again, seed=3))


@pytest.mark.parametrize("skip", ["att", "att_query"])
def test_widths_are_skipped_by_the_name_of_their_layer(skip):
    gated = keras_bar.gate(transformer(multi_head()), skip=skip)
    expected = [] if skip == "att" else ["att_value_width_gate"]
    assert [x.name for x in widths_of(gated)] == expected


def test_features_that_something_else_reads_have_no_gate():
    def rotary(x):
        """Positions turn pairs of features."""
        q, k, v = (
            layers.EinsumDense("abc,cde->abde", (TOKENS, HEADS, 2))(x)
            for _ in range(3)
        )
        q, k = (ops.concatenate([-y[..., 1:], y[..., :1]], -1) for y in (q, k))
        weights = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k))
        x = ops.einsum("bhqk,bkhd->bqhd", weights, v)
        x = ops.reshape(x, (-1, TOKENS, 2 * HEADS))
        return layers.Dense(DIM, name="output")(x)

    gated = keras_bar.gate(randomize(transformer(rotary)), seed=0)
    assert len(widths_of(gated)) == 1
    assert_invariants(close_gates(gated))


def test_any_number_of_tokens():
    inputs = keras.Input((None, 9))
    q, k, v = (
        layers.EinsumDense("abc,cde->abde", (None, 2, 4))(inputs)
        for _ in range(3)
    )
    weights = ops.softmax(ops.einsum("bqhd,bkhd->bhqk", q, k))
    x = ops.einsum("bhqk,bkhd->bqhd", weights, v)
    x = layers.EinsumDense("abcd,cde->abe", (None, 9))(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    gated = close_gates(keras_bar.gate(randomize(keras.Model(inputs, outputs))))
    assert_invariants(gated, measure=False)


def test_a_gated_model_is_loaded(tmp_path):
    gated = closed(gate("einsums"))
    gated.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    a, b = (
        outputs_of(keras_bar.compact(m), inputs_for(m)) for m in (gated, loaded)
    )
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", ["multi_head", "by_hand"])
def test_baselines(kind):
    model = randomize(transformer(ATTENTIONS[kind]))
    small = baselines.prune(model, baselines.weight_magnitude, 0.5, "flops")
    full, left = map(keras_bar.measure_cost, (model, small))
    assert 0.4 < left.flops / full.flops <= 0.5


def test_widths_train():
    gated = gate("multi_head")
    gated.compile("adam", "mse")
    x = np.random.default_rng(0).normal(size=(64, TOKENS, 5))
    regularizer = keras_bar.callbacks.BudgetRegularizer(0.5, "flops")
    with pytest.warns(UserWarning):
        gated.fit(
            x,
            np.ones((64, 3)),
            batch_size=16,
            epochs=2,
            verbose=0,
            callbacks=[regularizer],
        )
    small = keras_bar.compact(gated)
    full, left = map(keras_bar.measure_cost, (transformer(multi_head()), small))
    assert left.flops <= 0.5 * full.flops
