"""Layers of users that multiply by weights of their own."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.analysis.rules.attention_test import TOKENS
from tests.analysis.rules.attention_test import transformer
from tests.helpers import pruning
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core


class Linear(layers.Layer):
    """The layer of Keras's guide to layers of one's own."""

    def __init__(self, units, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.units, self.use_bias = units, use_bias

    def build(self, shape):
        self.w = self.add_weight((shape[-1], self.units), name="w")
        if self.use_bias:
            self.b = self.add_weight((self.units,), "random_normal", name="b")

    def call(self, x):
        x = ops.matmul(x, self.w)
        return self.b + x if self.use_bias else x


class Mlp(layers.Layer):
    """As in the guide; the second layer is called twice."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = Linear(8, name="first")
        self.second = Linear(8, use_bias=False, name="second")
        self.third = Linear(5, name="third")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((None, 8))
        self.third.build((None, 8))

    def call(self, x):
        x = ops.relu(self.first(x))
        x = ops.relu(self.second(x))
        return self.third(ops.relu(self.second(x)))


class Attention(layers.Layer):
    """Attention by equations, with kernels of its own."""

    def __init__(self, heads=4, size=3, **kwargs):
        super().__init__(**kwargs)
        self.sizes = heads, size

    def build(self, shape):
        for name in ("query", "key", "value"):
            shape_of = (shape[-1], *self.sizes)
            setattr(self, name, self.add_weight(shape_of, name=name))
        self.output_ = self.add_weight((*self.sizes, shape[-1]), name="output")

    def call(self, x):
        q, k, v = (
            ops.einsum("btd,dhe->bhte", x, w)
            for w in (self.query, self.key, self.value)
        )
        weights = ops.softmax(ops.einsum("bhqe,bhke->bhqk", q, k) / 2.0)
        x = ops.einsum("bhqk,bhke->bhqe", weights, v)
        return ops.einsum("hed,bhte->btd", self.output_, x)


def linear(x, w, b):
    return ops.matmul(x, w) + b


def in_float32(x, w, b):
    return ops.cast(linear(ops.cast(x, "float32"), w, b), x.dtype)


def read_twice(x, w, b):
    y = ops.matmul(x, w)
    return ops.relu(y + b) * y


WAYS = {
    "linear": linear,
    "dot": lambda x, w, b: ops.dot(x, w) + b,
    "einsum": lambda x, w, b: ops.einsum("bd,de->be", x, w) + b,
    "ellipsis": lambda x, w, b: ops.einsum("...d,de->...e", x, w) + b,
}
OTHERS = {
    "in_float32": in_float32,
    "with_and_without_bias": lambda x, w, b: (
        ops.relu(linear(x, w, b)) * ops.matmul(x, w)
    ),
    "read_twice": read_twice,
    "transposed": lambda x, w, b: (
        ops.einsum("bd,ed->be", x, ops.transpose(w)) + b
    ),
    "scaled": lambda x, w, b: ops.matmul(x, 2.0 * w) + b,
    "summed": lambda x, w, b: ops.einsum("bd,de->b", x, w)[:, None] + b,
}


class Own(layers.Layer):
    """Computes something with a kernel and a bias of its own.

    Args:
        kind: A key of `WAYS` or `OTHERS`.
        trained: Whether the kernel and the bias are trained.
        autocast: Whether they are cast.
    """

    def __init__(self, kind, trained=(True, True), autocast=True, **kwargs):
        super().__init__(**kwargs)
        self.kind, self.trained, self.casts = kind, tuple(trained), autocast

    def build(self, shape):
        first, second = self.trained
        self.w = self.add_weight(
            (shape[-1], 8), trainable=first, autocast=self.casts, name="w"
        )
        self.b = self.add_weight(
            (8,), trainable=second, autocast=self.casts, name="b"
        )

    def call(self, x):
        return {**WAYS, **OTHERS}[self.kind](x, self.w, self.b)

    def get_config(self):
        own = {"kind": self.kind, "trained": self.trained}
        return {**super().get_config(), **own, "autocast": self.casts}


class Tied(layers.Layer):
    """Uses a weight as a kernel and as an operand of another product."""

    def build(self, shape):
        self.w = self.add_weight((shape[-1], shape[-1]), name="w")

    def call(self, x):
        return ops.matmul(ops.matmul(x, self.w), ops.transpose(self.w))


def classifier(layer):
    inputs = keras.Input((6,))
    x = layers.Dense(7, "relu", name="stem")(inputs)
    return pruning.randomize(
        keras.Model(inputs, layers.Dense(3, name="logits")(layer(x)))
    )


def test_the_guides_network_is_pruned(tmp_path):
    model = classifier(Mlp(name="mlp"))
    gated = keras_bar.gate(model, seed=0)
    names = [x.name for x in pruning.gates_of(gated)]
    own = [f"mlp_{x}_w_dense_gate" for x in ("first", "second", "third")]
    assert names == ["stem_gate", *own]
    path = tmp_path / "small.keras"
    pruning.assert_invariants(pruning.close_gates(gated), path=path)


def test_costs_are_those_of_dense_layers():
    model = classifier(Mlp(name="mlp"))
    cost = keras_bar.measure_cost(model)
    sizes = [(6, 7), (7, 8), (8, 8), (8, 8), (8, 5), (5, 3)]
    assert cost.flops == 2 * sum(a * b for a, b in sizes)
    assert cost.params == model.count_params()
    assert not cost.uncounted


@pytest.mark.parametrize("trainable", [True, False])
def test_weights_and_flags_carry_over(trainable):
    model = classifier(Mlp(name="mlp"))
    model.get_layer("mlp").first.trainable = trainable
    copy = copy_of(model)
    x = pruning.inputs_for(model)
    assert pruning.difference(copy, model, x) < 1e-5
    new = copy.get_layer("mlp_first_w_dense")
    assert new.trainable == trainable
    old = model.get_layer("mlp").first
    for mine, other in zip(new.weights, (old.w, old.b), strict=True):
        assert mine is not other
        mine, other = map(ops.convert_to_numpy, (mine, other))
        np.testing.assert_array_equal(mine, other)


def test_attention_of_own_kernels(tmp_path):
    model = pruning.randomize(transformer(Attention(name="att")))
    gated = keras_bar.gate(model, seed=0)
    channels = {x.name: x.channels for x in pruning.gates_of(gated)}
    assert channels["att_value_dense_gate"] == 4
    assert channels["att_query_dense_width_gate"] == 3
    assert channels["att_value_dense_width_gate"] == 3
    path = tmp_path / "small.keras"
    pruning.assert_invariants(
        pruning.close_gates(gated), ("mixed", "regular"), path=path
    )


def test_heads_before_the_positions_cost_the_same():
    """A head is 4 projections of 3 features, and two products of weights."""
    model = transformer(Attention(name="att"))
    gated = keras_bar.gate(model, seed=0)
    before = keras_bar.measure_cost(gated)
    gated.get_layer("att_value_dense_gate").set_alive(np.arange(4) > 0)
    after = keras_bar.measure_cost(gated)
    dim = model.get_layer("embedding").units
    head = 2 * TOKENS * dim * 3 * 4 + 2 * 2 * TOKENS**2 * 3
    assert before.flops - after.flops == head
    assert before.params - after.params == 4 * 3 * dim


def test_a_weight_that_is_used_in_two_ways():
    explanation = keras_bar.explain(classifier(Tied(name="tied")))
    assert set(explanation.ungated) == {"stem", "tied"}
    assert "it uses 'w' in two ways" in explanation.ungated["tied"]


@pytest.mark.parametrize(
    "trained", [(True, False), (False, True), (False, False)]
)
def test_frozen_weights_stay_frozen(trained):
    model = classifier(Own("linear", trained, name="own"))
    gated = keras_bar.gate(model)
    own = {x.path for x in gated.trainable_weights if "own" in x.path}
    assert len({x for x in own if "gate" not in x}) == sum(trained)
    pruning.assert_invariants(pruning.close_gates(gated))


def test_weights_that_are_frozen_later():
    model = classifier(Own("linear", name="own"))
    first = keras_bar.gate(model)
    model.get_layer("own").trainable = False
    second = keras_bar.gate(model)
    for gated, trained in ((first, True), (second, False)):
        assert gated.get_layer("own_w_dense").trainable == trained


@pytest.mark.parametrize("kind", WAYS)
def test_ways_to_multiply(kind):
    model = classifier(Own(kind, name="own"))
    assert "own_w_dense" in keras_bar.explain(model).gated
    pruning.assert_invariants(pruning.close_gates(keras_bar.gate(model)))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_uses_of_a_kernel(kind):
    """Whatever becomes of the layer, it computes the same, and its kernel
    counts once."""
    model = classifier(Own(kind, name="own"))
    x = pruning.inputs_for(model)
    assert pruning.difference(copy_of(model), model, x) < 1e-5
    assert keras_bar.measure_cost(model).params == model.count_params()


def test_weights_that_are_not_cast_keep_their_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = classifier(Own("in_float32", autocast=False, name="own"))
    finally:
        keras.config.set_dtype_policy(before)
    x = pruning.inputs_for(model)
    assert pruning.difference(copy_of(model), model, x) < 1e-6
