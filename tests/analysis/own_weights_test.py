"""Layers of users that have weights of their own, compute with the size of the
batch, or return None beside their tensor."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar.analysis import trace
from tests.helpers import pruning
from tests.helpers.subclassed import Scaled
from tests.helpers.subclassed import copy_of

pytestmark = pytest.mark.core


class Tokens(layers.Layer):
    """Puts a class token in front of the patches, and adds positions."""

    def build(self, shape):
        _, patches, size = shape
        self.token = self.add_weight(
            (1, 1, size), "random_normal", name="token"
        )
        self.places = self.add_weight(
            (1, patches + 1, size), "random_normal", name="places"
        )

    def call(self, x):
        token = ops.tile(self.token, (ops.shape(x)[0], 1, 1))
        return ops.concatenate([token, x], axis=1) + self.places


class Embedded(layers.Layer):
    """Embeds patches; the positions are those of an `Embedding`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.patches = layers.Conv2D(8, 2, 2, name="patches")
        self.places = layers.Embedding(10, 8, name="places")

    def build(self, shape):
        self.patches.build(shape)
        self.places.build((1, 10))
        self.token = self.add_weight((1, 1, 8), "random_normal", name="token")

    def call(self, x):
        x = self.patches(x)
        batch = ops.shape(x)[0]
        x = ops.reshape(x, (batch, -1, 8))
        token = ops.broadcast_to(self.token, (batch, 1, 8))
        x = ops.concatenate([token, x], axis=1)
        return x + self.places(np.arange(10)[None])


class Mixer(layers.Layer):
    """Two dense layers; None where others return scores."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(16, "relu", name="first")
        self.second = layers.Dense(8, name="second")

    def build(self, shape):
        self.first.build(shape)
        self.second.build((*shape[:-1], 16))

    def call(self, x):
        return x + self.second(self.first(x)), None


class Encoder(layers.Layer):
    """Blocks that return None, beside constants that nobody reads."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Mixer(name=f"block{i}") for i in range(2)]

    def build(self, shape):
        for x in self.blocks:
            x.build(shape)

    def call(self, x):
        for block in self.blocks:
            x, _ = block(x)
        return x, ops.zeros((0, 8))


class Windows(layers.Layer):
    """Attention in 4 windows of an image of 4x4, one of which is masked, with a
    bias per head and pair of places."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.qkv = layers.Dense(24, name="qkv")
        self.out = layers.Dense(8, name="out")

    def build(self, shape):
        self.qkv.build(shape)
        self.out.build(shape)
        self.bias = self.add_weight((5, 2), "random_normal", name="bias")

    def call(self, x):
        count = ops.shape(x)[0]
        x = ops.roll(x, (-1, -1), axis=(1, 2))
        x = ops.reshape(x, (count, 2, 2, 2, 2, 8))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, 4, 8))
        x = self.attend(x)
        count = ops.shape(x)[0] // 4
        x = ops.reshape(x, (count, 2, 2, 2, 2, 8))
        x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
        return ops.roll(ops.reshape(x, (count, 4, 4, 8)), (1, 1), axis=(1, 2))

    def attend(self, x):
        count = ops.shape(x)[0]
        x = ops.reshape(self.qkv(x), (count, 4, 3, 2, 4))
        q, k, v = ops.unstack(ops.transpose(x, (2, 0, 3, 1, 4)), axis=0)
        scores = ops.matmul(q, ops.transpose(k, (0, 1, 3, 2)))
        index = np.arange(4)[:, None] % 3 + np.arange(4) % 3
        bias = ops.take(self.bias, index, axis=0)
        scores = scores + ops.transpose(bias, (2, 0, 1))
        mask = np.zeros((1, 4, 1, 4, 4), "float32")
        mask[:, 3, :, :2, 2:] = -100.0
        mask = ops.convert_to_tensor(mask)
        scores = ops.reshape(scores, (count // 4, 4, 2, 4, 4)) + mask
        scores = ops.softmax(ops.reshape(scores, (-1, 2, 4, 4)), -1)
        x = ops.transpose(ops.matmul(scores, v), (0, 2, 1, 3))
        return self.out(ops.reshape(x, (count, 4, 8)))


def head(inputs, x):
    x = layers.Dense(12, "relu", name="hidden")(x)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))


def tokens():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 2, 2, name="patches")(inputs)
    return head(inputs, Tokens(name="tokens")(layers.Reshape((9, 8))(x)))


def embedded():
    inputs = keras.Input((6, 6, 2))
    return head(inputs, Embedded(name="embedded")(inputs))


def encoder():
    inputs = keras.Input((9, 8))
    return head(inputs, Encoder(name="encoder")(inputs)[0])


def windows():
    inputs = keras.Input((4, 4, 8))
    x = Windows(name="windows")(inputs)
    return head(inputs, layers.Reshape((16, 8))(x))


def scaled():
    inputs = keras.Input((6, 6, 8))
    x = Scaled(name="scaled1")(Scaled(name="scaled0")(inputs))
    return head(inputs, layers.Reshape((36, 8))(x))


MODELS = {
    scaled: ["hidden", "scaled0_conv", "scaled1_conv"],
    tokens: ["patches", "hidden"],
    embedded: ["embedded_patches", "hidden"],
    encoder: [
        *("encoder_block0_first", "encoder_block0_second"),
        *("encoder_block1_first", "encoder_block1_second", "hidden"),
    ],
    windows: ["hidden", "windows_out"],
}


@pytest.mark.parametrize("make", MODELS)
def test_a_compact_model_of_keras_alone(make, tmp_path):
    if make is encoder and keras.backend.backend() == "torch":
        pytest.skip("Keras infers no shape of a layer that returns None there")
    keras.utils.set_random_seed(0)
    model = pruning.randomize(make())
    assert not [x.opaque for x in trace.trace(model).nodes if x.opaque]
    assert {*MODELS[make]} <= {*keras_bar.explain(model).gated}
    gated = keras_bar.gate(model, seed=0)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
    assert_same(copy_of(model), model, x)
    for layer in gated.layers:
        if isinstance(layer, keras_bar.layers.HardConcreteGate):
            layer.set_alive(np.arange(layer.channels) % 2 == 0)
    predicted = keras_bar.measure_cost(gated)
    small = keras_bar.compact(gated)
    cost = keras_bar.measure_cost(small)
    assert (cost.volume, cost.flops, cost.params) == (
        predicted.volume,
        predicted.flops,
        predicted.params,
    )
    assert cost.params == small.count_params() < model.count_params()
    assert_same(keras_bar.hard_prune(gated), small, x)
    small.save(tmp_path / "small.keras")
    kinds = {type(x).__module__.split(".")[0] for x in small.operations}
    assert kinds == {"keras"}
    assert_same(keras.models.load_model(tmp_path / "small.keras"), small, x)
    gated.save(tmp_path / "gated.keras")
    assert_same(keras.models.load_model(tmp_path / "gated.keras"), gated, x)


def assert_same(a, b, x):
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(m(x)) for m in (a, b)), atol=1e-5
    )


def test_heads_in_windows_have_one_gate():
    gated = keras_bar.gate(windows(), seed=0)
    sizes = [
        x.channels
        for x in gated.layers
        if isinstance(x, keras_bar.layers.HardConcreteGate)
    ]
    assert sorted(sizes) == [2, 8, 12]


def test_tokens_alone_do_not_connect_a_network():
    gated = keras_bar.gate(tokens(), seed=0)
    gate = gated.get_layer("patches_gate")
    gate.set_alive(np.zeros(gate.channels, bool))
    with pytest.raises(ValueError, match="disconnected"):
        keras_bar.compact(gated, allow_unfinished=True)


def test_own_weights_are_trained():
    keras.utils.set_random_seed(0)
    gated = keras_bar.gate(tokens(), seed=0)
    token = gated.get_layer("tokens_token")
    before = ops.convert_to_numpy(token.value)
    gated.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 2))
    gated.fit(x, np.ones((8, 3)), verbose=0)
    assert np.all(ops.convert_to_numpy(token.value) != before)


def test_a_frozen_weight_stays_frozen():
    model = tokens()
    model.get_layer("tokens").trainable = False
    gated = keras_bar.gate(model, seed=0)
    assert not gated.get_layer("tokens_token").trainable_variables


def test_the_layer_of_the_user_stays_as_it_is():
    model = tokens()
    layer = model.get_layer("tokens")
    keras_bar.gate(model, seed=0)
    assert isinstance(layer.token, keras.Variable)
    assert len(layer.weights) == 2


def test_a_constant_that_is_read_keeps_a_layer_whole():
    inputs = keras.Input((9, 8))
    x, constant = Encoder(name="encoder")(inputs)
    model = keras.Model(inputs, [layers.Dense(2)(x), constant])
    node = trace.trace(model).nodes[0]
    if keras.backend.backend() == "torch":  # Keras infers no output of None.
        assert "does not run on symbolic tensors" in node.opaque
    else:
        assert node.opaque == "it returns a constant that is read"


def test_a_regularized_weight_keeps_a_layer_whole():
    class Regularized(Tokens):
        def build(self, shape):
            super().build(shape)
            self.token.regularizer = keras.regularizers.L2()

    inputs = keras.Input((9, 8))
    x = Regularized(name="tokens")(inputs)
    node = trace.trace(keras.Model(inputs, layers.Dense(2)(x))).nodes[0]
    assert "a variable of its own, 'token'" in node.opaque


def test_flops_are_those_of_all_windows():
    rows = {x.name: x for x in keras_bar.measure_cost(windows()).layers}
    assert rows["windows_qkv"].flops == 2 * 16 * 8 * 24
    # Weights of 4 x 4 places in 4 windows, for 2 heads of 4 features.
    assert rows["windows_matmul"].flops == 2 * 4 * 4 * 4 * 2 * 4
    assert rows["windows_out"].flops == 2 * 16 * 8 * 8
    assert rows["hidden"].flops == 2 * 16 * 8 * 12


def test_a_shared_layer_keeps_one_weight():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 2, 2, name="patches")(inputs)
    shared = Tokens(name="tokens")
    x = layers.Reshape((9, 8))(x)
    a, b = shared(x), shared(layers.ReLU()(x))
    model = pruning.randomize(head(inputs, a + b))
    gated = keras_bar.gate(model, seed=0)
    weights = [x for x in gated.weights if "token" in x.path]
    assert len(weights) == 2
    x = np.random.default_rng(0).normal(size=(3, 6, 6, 2))
    assert_same(copy_of(model), model, x)
    assert_same(
        keras_bar.hard_prune(gated, allow_unfinished=True),
        keras_bar.compact(gated, allow_unfinished=True),
        x,
    )


def test_a_weight_that_is_used_in_two_ways_keeps_a_layer_whole():
    class Twice(Tokens):
        def call(self, x):
            return super().call(x) + self.token

    inputs = keras.Input((9, 8))
    x = Twice(name="tokens")(inputs)
    node = trace.trace(keras.Model(inputs, layers.Dense(2)(x))).nodes[0]
    assert node.opaque


def test_none_beside_a_tensor_and_a_batch_size():
    if keras.backend.backend() == "torch":
        pytest.skip("Keras infers no shape of a layer that returns None there")

    class Sized(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.mixer = Mixer(name="mixer")

        def build(self, shape):
            self.mixer.build(shape)

        def call(self, x):
            count = ops.shape(x)[0] * 3
            x, _ = self.mixer(ops.reshape(x, (count, 3, 8)))
            return ops.reshape(x, (count // 3, 9, 8))

    keras.utils.set_random_seed(0)
    inputs = keras.Input((9, 8))
    model = pruning.randomize(head(inputs, Sized(name="sized")(inputs)))
    assert "sized_mixer_first" in keras_bar.explain(model).gated
    x = np.random.default_rng(0).normal(size=(3, 9, 8))
    assert_same(copy_of(model), model, x)
