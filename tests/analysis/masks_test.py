"""Masks of time steps, which Keras carries along with tensors."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import keras_internals
from tests.helpers.masked import SIZE
from tests.helpers.masked import STEPS
from tests.helpers.masked import Encoder
from tests.helpers.masked import classifier
from tests.helpers.masked import feed_forward
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import difference
from tests.helpers.pruning import files_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize

pytestmark = [
    pytest.mark.core,
    # A nested model does not say that it supports masks.
    pytest.mark.filterwarnings("ignore:.*does not support masking"),
]


def attending(x, **options):
    """A block that normalizes behind the attention."""
    y = layers.MultiHeadAttention(2, 4, name="attention", **options)(x, x)
    return feed_forward(layers.LayerNormalization()(layers.Add()([x, y])))


def normalizing_first(x):
    y = layers.LayerNormalization()(x)
    y = layers.MultiHeadAttention(2, 4, name="attention")(y, y)
    x = layers.Add()([x, y])
    return layers.Add()([x, feed_forward(layers.LayerNormalization()(x))])


def grouped_queries(x):
    y = layers.GroupQueryAttention(4, 4, 2, name="attention")(x, x)
    return feed_forward(layers.Add()([x, y]))


def nested(x):
    """The mask enters the inner model unseen."""
    inputs = keras.Input((STEPS, SIZE))
    return keras.Model(inputs, attending(inputs), name="encoder")(x)


def averaged_inside(x):
    inputs = keras.Input((STEPS, SIZE))
    y = layers.Dense(SIZE, "relu", name="first")(inputs)
    return keras.Model(inputs, feed_forward(y), name="encoder")(x)


def averaged_behind(x):
    x = layers.Identity()(x)
    return feed_forward(layers.MultiHeadAttention(2, 4)(x, x))


class Unaware(Encoder):
    """Only what it calls reads the mask, unseen."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = False

    def call(self, x):
        x = x + self.attention(x, x)
        return x + self.down(self.up(x))


def normalized(x):
    x = layers.Dense(12, name="up")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return layers.Dense(SIZE, name="down")(x)


def recurrent(x):
    x = layers.Dense(12, "relu", name="up")(x)
    x = layers.Dense(SIZE, name="down")(x)
    return layers.LSTM(SIZE, return_sequences=True)(x)


BLOCKS = {
    "attention": attending,
    "dropout": lambda x: attending(x, dropout=0.1),
    "normalizing_first": normalizing_first,
    "grouped_queries": grouped_queries,
    "nested": nested,
    "averaged_inside": averaged_inside,
    "encoder": lambda x: Encoder(name="encoder")(x),
    "two_encoders": lambda x: Encoder()(Encoder()(x)),
    "unaware": lambda x: Unaware(name="encoder")(x),
    "batch_normalization": normalized,
    "recurrent": recurrent,
}
# Blocks without attention.
FEW = {"averaged_inside", "batch_normalization", "recurrent"}


class Table(layers.Layer):
    """Words and places, and a mask of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(5, SIZE)
        self.places = layers.Embedding(STEPS, SIZE)

    def build(self, shape):
        self.words.build()
        self.places.build()

    def call(self, x):
        return self.words(x) + self.places(ops.arange(ops.shape(x)[-1]))

    def compute_mask(self, x, mask=None):
        return ops.not_equal(x, 0)


@pytest.mark.parametrize("kind", BLOCKS)
def test_masks_are_read_as_before(kind, tmp_path):
    model = classifier(BLOCKS[kind])
    gated = keras_bar.gate(model)
    told = keras_bar.explain(gated)
    heads = [x for x in told.gated if x.endswith("attention_value")]
    assert bool(heads) == (kind not in FEW)
    assert any(x.endswith(("up", "dense")) for x in told.gated)
    x = inputs_for(model)
    assert difference(open_gates(gated), model, x) < 1e-5
    _, small = assert_invariants(
        close_gates(gated), path=tmp_path / "small.keras"
    )
    again = keras_bar.gate(small)
    assert difference(open_gates(again), small, x) < 1e-5


@pytest.mark.filterwarnings("error:.*does not support masking")
def test_attention_ends_no_mask_that_is_carried():
    """Keras would warn of it at every call."""
    model = classifier(averaged_behind)
    gated = open_gates(keras_bar.gate(model))
    assert not gated.get_layer("table").mask_zero
    assert model.get_layer("table").mask_zero
    assert difference(gated, model, inputs_for(model)) < 1e-5


@pytest.mark.parametrize("kind", ["encoder", "attention"])
def test_a_layer_that_makes_masks_of_its_own(kind):
    model = classifier(BLOCKS[kind], Table(name="table"))
    gated = keras_bar.gate(model)
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-5
    assert_invariants(close_gates(gated))


def test_masking_of_samples():
    """`Masking` makes masks of numbers."""
    inputs = keras.Input((STEPS, SIZE))
    x = nested(layers.Masking()(inputs))
    x = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    model = randomize(keras.Model(inputs, x))
    gated = open_gates(keras_bar.gate(model))
    batch = inputs_for(model, batch=4)
    batch[:, 3:] = 0.0
    assert difference(gated, model, batch) < 1e-5
    small = keras_bar.compact(close_gates(gated))
    assert difference(small, keras_bar.hard_prune(gated), batch) < 1e-5


def test_outputs_that_lose_their_mask_are_told():
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, SIZE, mask_zero=True)(inputs)
    model = keras.Model(inputs, Encoder(name="encoder")(x), name="tagger")
    with pytest.warns(UserWarning, match="carry no mask.*weight") as found:
        keras_bar.gate(model)
    told = [x for x in found if "carry no mask" in str(x.message)]
    assert files_of(told) == [__file__]


def test_outputs_that_keep_their_mask():
    inputs = keras.Input((STEPS,), dtype="int32")
    x = layers.Embedding(5, SIZE, mask_zero=True)(inputs)
    model = keras.Model(inputs, normalized(x))
    gated = keras_bar.gate(model)
    for new in (gated, keras_bar.compact(close_gates(gated))):
        (output,) = new.outputs
        assert keras_internals.get_keras_mask(output) is not None
