"""Attention as it stands in models of users: with masks, shared, saved."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.analysis.rules.attention_test import DIM
from tests.analysis.rules.attention_test import HEADS
from tests.analysis.rules.attention_test import KINDS
from tests.analysis.rules.attention_test import SIZE
from tests.analysis.rules.attention_test import TOKENS
from tests.analysis.rules.attention_test import gates_of_heads
from tests.analysis.rules.attention_test import transformer
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize


def test_a_mask_of_keras_is_kept():
    inputs = keras.Input((TOKENS,), dtype="int32")
    x = layers.Embedding(20, DIM, mask_zero=True)(inputs)
    y = layers.MultiHeadAttention(HEADS, SIZE, name="att")(x, x)
    y = layers.Dense(12, "relu", name="up")(y)[:, 0]
    model = randomize(keras.Model(inputs, layers.Dense(3)(y)))
    gated = open_gates(keras_bar.gate(model))
    tokens = np.random.default_rng(0).integers(0, 3, (4, TOKENS))
    assert difference(gated, model, tokens) < 1e-5


def test_a_mask_that_pooling_reads():
    inputs = keras.Input((TOKENS,), dtype="int32")
    x = layers.Embedding(20, DIM, mask_zero=True)(inputs)
    x = layers.Dense(12, "relu", name="up")(x)
    x = layers.Dense(6, "relu", name="pooled")(
        layers.GlobalAveragePooling1D()(x)
    )
    model = randomize(keras.Model(inputs, layers.Dense(3)(x)))
    gated = open_gates(keras_bar.gate(model))
    tokens = np.random.default_rng(0).integers(0, 3, (4, TOKENS))
    assert difference(gated, model, tokens) < 1e-5


def test_a_constant_mask_per_head():
    mask = np.random.default_rng(0).random((1, HEADS, TOKENS, TOKENS)) > 0.3
    mask |= np.eye(TOKENS, dtype=bool)

    def attend(x):
        layer = layers.MultiHeadAttention(HEADS, SIZE, dropout=0.1, name="att")
        return layer(x, x, attention_mask=ops.convert_to_tensor(mask))

    gated = keras_bar.gate(randomize(transformer(attend)), seed=0)
    assert_invariants(close_gates(gated))


def test_a_layer_for_several_lengths():
    inputs = keras.Input((TOKENS, DIM))
    attention = layers.MultiHeadAttention(HEADS, SIZE, name="att")
    y = layers.Add()(
        [attention(inputs, inputs), attention(inputs, inputs[:, :4])]
    )
    y = layers.Dense(12, "relu", name="up")(y)
    model = randomize(keras.Model(inputs, layers.Dense(3)(y)))
    x = inputs_for(model)
    assert difference(open_gates(keras_bar.gate(model)), model, x) < 1e-5
    short = keras.Input((4, DIM))
    y = layers.Dense(12, "relu")(attention(short, short))
    other = keras.Model(short, layers.Dense(3)(y))
    x = inputs_for(other)
    assert difference(open_gates(keras_bar.gate(other)), other, x) < 1e-5


@keras.saving.register_keras_serializable("keras_bar_tests")
class Attention(layers.Layer):
    """In the manner of PyTorch: with shapes that it asks for."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fused = layers.Dense(3 * HEADS * SIZE, name="fused")
        self.outputs = layers.Dense(DIM, name="outputs")

    def build(self, shape):
        self.fused.build(shape)
        self.outputs.build((*shape[:-1], HEADS * SIZE))

    def call(self, x):
        batch, tokens, _ = ops.shape(x)
        x = ops.reshape(self.fused(x), (batch, tokens, 3, HEADS, SIZE))
        q, k, v = ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), axis=0)
        weights = ops.softmax(ops.matmul(q, ops.swapaxes(k, -1, -2)))
        x = ops.swapaxes(ops.matmul(weights, v), 1, 2)
        return self.outputs(ops.reshape(x, (batch, tokens, HEADS * SIZE)))


def test_a_gated_model_runs_after_loading(tmp_path):
    gated = keras_bar.gate(randomize(transformer(Attention(name="att"))))
    assert len(gates_of_heads(gated)) == 1
    gated.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    assert difference(loaded, gated, inputs_for(gated)) < 1e-6


def test_half_precision_is_saved(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        gated = keras_bar.gate(transformer(KINDS["dropout"]), seed=0)
    finally:
        keras.config.set_dtype_policy(before)
    gated.save(tmp_path / "gated.keras")
    loaded = keras.models.load_model(tmp_path / "gated.keras")
    assert difference(loaded, gated, inputs_for(gated)) < 1e-2


def test_a_fixed_batch_does_not_count():
    costs = []
    for batch in (None, 2):
        x = inputs = keras.Input((TOKENS, DIM), batch_size=batch)
        x = layers.MultiHeadAttention(HEADS, SIZE, dropout=0.1)(x, x)
        x = layers.Dense(3)(layers.Dense(4)(x))
        costs.append(keras_bar.measure_cost(keras.Model(inputs, x)).flops)
    assert costs[0] == costs[1]


def test_another_order_of_heads_and_parts():
    """As in GPT-NeoX. These heads have no gates."""

    def attend(x):
        x = layers.Dense(3 * HEADS * SIZE, name="fused")(x)
        x = ops.reshape(x, (-1, TOKENS, HEADS, 3, SIZE))
        q, k, v = (x[:, :, :, i] for i in range(3))
        x = ops.reshape(
            ops.dot_product_attention(q, k, v), (-1, TOKENS, HEADS * SIZE)
        )
        return layers.Dense(DIM, name="output")(x)

    gated = keras_bar.gate(randomize(transformer(attend)), seed=0)
    assert_invariants(close_gates(gated))


@pytest.mark.parametrize(
    "kind", ["multi_head", "grouped", "by_hand", "fused", "timm"]
)
def test_one_cut(kind):
    model = randomize(transformer(KINDS[kind]))
    x = np.random.default_rng(0).normal(size=(64, TOKENS, 5))
    small = keras_bar.prune(model, 1 / 2, "flops", x.astype("float32"))
    full, left = map(keras_bar.measure_cost, (model, small))
    assert 0.4 < left.flops / full.flops <= 0.5


@pytest.mark.parametrize("kind", ["multi_head", "by_hand", "timm"])
def test_heads_are_pruned_again(kind):
    gated = keras_bar.gate(randomize(transformer(KINDS[kind])), seed=0)
    close_gates(gated, seed=4)
    (heads,) = gates_of_heads(gated)
    again = keras_bar.gate(keras_bar.compact(gated), seed=0)
    found = [x.channels for x in again.layers if x.name == heads.name]
    assert found == [heads.alive().sum()]
