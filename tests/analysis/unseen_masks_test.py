"""Masks of time steps that layers inside of others read, unseen."""

import contextlib

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.masked import SIZE
from tests.helpers.masked import STEPS
from tests.helpers.masked import Encoder
from tests.helpers.masked import ends
from tests.helpers.masked import into
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize

pytestmark = [
    pytest.mark.core,
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
]


@contextlib.contextmanager
def of_policy(name):
    """A context in which new layers have a policy."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


class Reading(layers.Layer):
    """Only the recurrent layer inside reads the mask, unseen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.GRU(SIZE, return_sequences=True)

    def build(self, shape):
        self.inner.build(shape)

    def compute_output_shape(self, shape):
        return shape

    def call(self, x):
        return self.inner(x)


@keras.saving.register_keras_serializable("tests")
class Weighed(Reading):
    """It stays whole, because it has a weight of its own."""

    def build(self, shape):
        super().build(shape)
        self.scale = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return self.scale * self.inner(x)


class Casting(Reading):
    """Its casts change nothing, so that they keep the mask."""

    def call(self, x):
        x = ops.cast(x, self.compute_dtype)
        return self.inner(ops.convert_to_tensor(x))


class Precise(Reading):
    """Its cast takes the mask away."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.GRU(SIZE, return_sequences=True, dtype="float32")

    def call(self, x):
        return self.inner(ops.cast(x, "float32"))


class Pair(layers.Layer):
    """A constant, and a tensor with a mask."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(SIZE)

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return ops.ones((2,)), x + self.dense(x)

    def compute_mask(self, x, mask=None):
        return [None, mask]


class Choosing(layers.Layer):
    """It chooses the steps that count by a layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense, self.score = layers.Dense(SIZE), layers.Dense(1)

    def build(self, shape):
        self.dense.build(shape)
        self.score.build(shape)

    def call(self, x):
        return self.dense(x)

    def compute_mask(self, x, mask=None):
        return ops.squeeze(self.score(x), -1) > 0


UNSEEN = {
    "reading": lambda x: Reading()(x),
    "whole": lambda x: Weighed()(x),
    "behind_operations": lambda x: Weighed()(Encoder()(x)),
    "behind_an_addition": lambda x: Weighed()(layers.Add()([x, into(x)])),
    "behind_a_product": lambda x: Weighed()(layers.Multiply()([x, into(x)])),
    "casting": lambda x: Casting()(x),
    "of_a_pair": lambda x: Reading()(Pair()(x)[1]),
}


@pytest.mark.parametrize("kind", UNSEEN)
def test_masks_that_are_read_unseen(kind, tmp_path):
    model = ends(UNSEEN[kind])
    gated = keras_bar.gate(model)
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-5
    _, small = assert_invariants(
        close_gates(gated), BOTH, path=tmp_path / "small.keras"
    )
    again = keras_bar.gate(small)
    assert difference(open_gates(again), small, inputs_for(small)) < 1e-5


def test_a_cast_to_another_dtype_takes_the_mask_away():
    with of_policy("mixed_bfloat16"):
        model = ends(lambda x: Precise()(x))
        seen = ends(lambda x: layers.GRU(SIZE, return_sequences=True)(x))
    for expected in (model, seen):
        gated = open_gates(keras_bar.gate(expected))
        assert difference(gated, expected, inputs_for(model)) < 2e-2


class Padded(layers.Layer):
    """Like an embedding, but its argument of that name says something else."""

    def __init__(self, mask_zero=True, **kwargs):
        super().__init__(**kwargs)
        self.mask_zero = mask_zero

    def get_config(self):
        return {**super().get_config(), "mask_zero": self.mask_zero}

    def build(self, shape):
        self.table = self.add_weight(shape=(5, SIZE), regularizer="l2")

    def call(self, x):
        y = ops.take(self.table, x, axis=0)
        return y * ops.cast(x != 0, y.dtype)[..., None] if self.mask_zero else y

    def compute_mask(self, x, mask=None):
        return x != 0


@pytest.mark.filterwarnings("ignore:.*cannot be saved")
def test_other_layers_keep_their_arguments():
    model = ends(layers.Conv1D(SIZE, 3, padding="same"), Padded())
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


def test_each_input_of_a_nested_model_keeps_its_mask():
    first, second = (keras.Input((STEPS,), dtype="int32") for _ in range(2))
    inside = [keras.Input((STEPS, SIZE)) for _ in range(2)]
    read = [layers.GRU(SIZE)(into(x)) for x in inside]
    inner = keras.Model(inside, layers.Concatenate()(read))
    x = layers.Embedding(5, SIZE)(first)
    y = layers.Embedding(5, SIZE, mask_zero=True)(second)
    x = inner([x, y], mask=[ops.not_equal(first, 0), None])
    model = randomize(keras.Model([first, second], layers.Dense(3)(x)))
    words = inputs_for(model, batch=4)
    words = [words[0], words[1][::-1].copy()]
    assert difference(open_gates(keras_bar.gate(model)), model, words) < 1e-5


def test_masks_that_nobody_reads_need_no_channels():
    def concatenated(x):
        both = [layers.Dense(6, "relu", name=y)(x) for y in ("a", "b")]
        return layers.Conv1D(SIZE, 3, name="c")(layers.Concatenate()(both))

    told = keras_bar.explain(keras_bar.gate(ends(concatenated)))
    assert {"a", "b", "c"} <= {*told.gated}


def test_masks_by_variables_are_refused():
    class Above(Choosing):
        def build(self, shape):
            super().build(shape)
            self.least = self.add_weight(shape=(), trainable=False, name="t")

        def compute_mask(self, x, mask=None):
            return ops.any(x > self.least, axis=-1)

    with pytest.raises(ValueError, match="masks of 'above'.*with a variable"):
        keras_bar.gate(chosen_by(Above(name="above")))


def chosen_by(layer):
    inputs = keras.Input((STEPS, SIZE))
    x = into(Reading()(layer(inputs)))
    return randomize(keras.Model(inputs, layers.Dense(3)(x)))


def test_masks_by_a_layer():
    model = chosen_by(Choosing())
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


def test_casts_keep_masks():
    """Those of the inputs of layers, which Keras makes."""
    with of_policy("mixed_bfloat16"):
        table = layers.Embedding(5, SIZE, mask_zero=True, dtype="float32")
        model = ends(lambda x: Reading()(x), table)
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 2e-2


class EncoderWithMask(keras.Model):
    """Keras names it like what carries a mask."""

    def __init__(self):
        inputs = keras.Input((STEPS, SIZE))
        super().__init__(inputs, layers.Dense(SIZE, "tanh")(into(inputs)))


def test_models_whose_name_says_that_they_have_a_mask():
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, SIZE, mask_zero=True)(inputs)
    x = EncoderWithMask()(x, mask=ops.not_equal(inputs, 0))
    x = layers.Dense(9, "relu")(layers.GlobalMaxPooling1D()(x))
    model = randomize(keras.Model(inputs, layers.Dense(3)(x)))
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


class Factor(layers.Layer):
    """It stays whole, and hands masks on."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shape):
        self.factor = self.add_weight(
            shape=(), initializer="ones", regularizer="l2"
        )

    def call(self, x):
        return self.factor * x


@pytest.mark.filterwarnings("ignore:.*cannot be saved")
@pytest.mark.parametrize("supports", [False, True])
def test_what_users_say_of_masks_from_outside(supports):
    factor = Factor(name="factor")
    factor.supports_masking = supports
    model = ends(lambda x: Weighed()(factor(into(x))))
    gated = open_gates(keras_bar.gate(model))
    assert difference(gated, model, inputs_for(model)) < 1e-5


def test_what_carries_masks_is_no_layer_of_the_users():
    keras.backend.clear_session()
    model = ends(UNSEEN["behind_operations"])
    gated = keras_bar.gate(model)
    for measured in (model, gated, keras_bar.compact(close_gates(gated))):
        uncounted = keras_bar.measure_cost(measured).uncounted
        assert not [x for x in uncounted if "mask" in x]
    carriers = [
        x for x in keras_bar.gate(gated).layers if isinstance(x, keras.Model)
    ]
    assert len(carriers) == 1
    names = [layers.Identity().name]
    keras_bar.explain(model)
    names.append(layers.Identity().name)
    assert names == ["identity", "identity_1"]
