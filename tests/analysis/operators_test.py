"""Operators that tensors have and Keras's symbolic tensors lack."""

import concurrent.futures

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import operators
from tests.helpers import pruning
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core

STEPS = 6


class Causal(layers.Layer):
    """Attention of one head with a mask, a weight that is compared with 0."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [layers.Dense(8, name=x) for x in ("q", "k", "v")]

    def build(self, shape):
        for x in self.parts:
            x.build(shape)
        self.mask = self.add_weight(
            (STEPS, STEPS), "zeros", trainable=False, name="mask"
        )
        self.mask.assign(np.tril(np.ones((STEPS, STEPS))))

    def call(self, x):
        q, k, v = (part(x) for part in self.parts)
        scores = ops.matmul(q, ops.transpose(k, (0, 2, 1)))
        scores = ops.where(self.mask[:STEPS] == 0, -1e9, scores)
        return ops.matmul(ops.softmax(scores), v)


def test_a_causal_mask_stays():
    """`==` of a symbolic tensor is False in Keras, which dropped the mask."""
    inputs = keras.Input((STEPS, 4))
    x = Causal(name="causal")(layers.Dense(4, name="stem")(inputs))
    model = pruning.randomize(keras.Model(inputs, layers.Dense(2)(x)))
    model.get_layer("causal").mask.assign(np.tril(np.ones((STEPS, STEPS))))
    copy = copy_of(model)
    assert "causal_v" in keras_bar.explain(model).gated
    x = np.random.default_rng(0).normal(size=(2, STEPS, 4)).astype("float32")
    assert pruning.difference(copy, model, x) < 1e-5
    later = x.copy()
    later[:, -1] += 1.0
    first, second = (ops.convert_to_numpy(copy(y)) for y in (x, later))
    np.testing.assert_allclose(first[:, :-1], second[:, :-1], atol=1e-6)
    assert np.abs(first[:, -1] - second[:, -1]).max() > 1e-3


class OneWord(layers.Layer):
    """Sets the features of one word of a vocabulary to 0."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(20, 8, name="words")
        self.mix = layers.Dense(8, name="mix")

    def build(self, shape):
        self.words.build(shape)
        self.mix.build((*shape, 8))

    def call(self, ids):
        x = self.mix(self.words(ids))
        return ops.where((ids == 19)[..., None], 0.0, x)


def test_integers_are_compared():
    inputs = keras.Input((STEPS,), dtype="int32")
    x = ops.mean(OneWord(name="one")(inputs), axis=1)
    model = keras.Model(inputs, layers.Dense(2)(x))
    copy = copy_of(model)
    assert "one_mix" in {x.name for x in copy.layers}
    ids = np.arange(4 * STEPS).reshape(4, STEPS) % 20
    assert pruning.difference(copy, model, ids) < 1e-5


KEYS = {
    "slice": slice(0, 1),
    "ellipsis": Ellipsis,
    "first": None,
    "between": (slice(None), None),
    "last": (Ellipsis, None),
    "around": (None, Ellipsis, None),
    "selection": (slice(None), None, 1, slice(0, 2), None),
    "behind_an_ellipsis": (Ellipsis, 0, None),
    "two": (slice(None), None, None, 2),
}


@pytest.mark.parametrize("name", KEYS)
def test_new_axes(name):
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype("float32")
    inputs = keras.Input(batch_shape=array.shape)
    with operators.completed():
        output = inputs[KEYS[name]]
    expected = array[KEYS[name]]
    assert output.shape == expected.shape
    found = keras.Model(inputs, output)(array)
    np.testing.assert_array_equal(found, expected)


def test_arrays_on_the_left():
    inputs = keras.Input((3,))
    with operators.completed():
        output = np.array([1.0, 2.0, 3.0], "float32") * inputs
    assert isinstance(output, keras.KerasTensor)
    found = keras.Model(inputs, output)(np.ones((1, 3)))
    np.testing.assert_array_equal(found, [[1.0, 2.0, 3.0]])


def test_objects_are_compared_outside():
    x, y = keras.Input((3,)), keras.Input((3,))
    with operators.completed():
        assert isinstance(x == y, keras.KerasTensor)
        assert keras.Model([x, y], ops.add(x, y)).inputs == [x, y]
    assert not [z for z in (x,) if z == y]
    assert "__eq__" not in vars(keras.KerasTensor)
    with pytest.raises(ValueError, match="None"):
        x[None]


def test_a_tensor_is_not_none():
    x = keras.Input((3,))
    with operators.completed():
        assert (x == None) is False  # noqa: E711
        assert (x == "text") is False


def test_threads_do_not_disturb_each_other():
    """Each of them changes methods of Keras's classes, which are as before."""
    methods = (keras.Layer.add_loss, keras.KerasTensor.__getitem__)
    models = []
    for _ in range(4):
        inputs = keras.Input((STEPS, 4))
        x = Causal(name="causal")(inputs)
        models.append(keras.Model(inputs, layers.Dense(2)(x)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(keras_bar.explain, models))
    assert all("causal_v" in x.gated for x in found)
    assert methods == (keras.Layer.add_loss, keras.KerasTensor.__getitem__)
    assert "__eq__" not in vars(keras.KerasTensor)


class Words(layers.Layer):
    """Embeddings of words and of positions, as in Keras's examples."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = layers.Embedding(20, 8)
        self.places = layers.Embedding(STEPS, 8)

    def call(self, ids):
        return self.words(ids) + self.places(ops.arange(ops.shape(ids)[-1]))


class Classifier(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.words = Words()
        self.hidden = layers.Dense(16, "relu", name="hidden")
        self.logits = layers.Dense(2, name="logits")

    def call(self, ids):
        return self.logits(self.hidden(ops.mean(self.words(ids), axis=1)))


def test_embeddings_two_layers_deep():
    """Keras infers the shapes of the inner layer by a call on placeholders."""
    model = Classifier()
    ids = np.arange(2 * STEPS).reshape(2, STEPS)
    expected = pruning.outputs_of(model, ids)
    inputs = keras.Input((STEPS,), dtype="int32")
    gated = keras_bar.gate(model, inputs=inputs)
    assert "hidden_gate" in {x.name for x in gated.layers}
    for gate in pruning.gates_of(gated):
        gate.fixed_value.assign(np.ones(gate.channels))
    small = keras_bar.compact(gated)
    assert pruning.distance(pruning.outputs_of(small, ids), expected) < 1e-5
