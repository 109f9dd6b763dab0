"""What goes into a model and comes out of it stays named as it was."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import conv_norm_relu
from tests.helpers.pruning import difference
from tests.helpers.pruning import files_of
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import inputs_for
from tests.helpers.pruning import open_gates
from tests.helpers.pruning import randomize

pytestmark = pytest.mark.core


def pooled(x, units, name):
    return layers.Dense(units, name=name)(layers.GlobalAveragePooling2D()(x))


def two_heads(nest):
    """Two inputs, and two heads whose gates do not depend on each other."""
    inputs = {x: keras.Input((6, 6, 3), name=x) for x in ("right", "left")}
    x = layers.Conv2D(4, 3, padding="same", name="one")(inputs["left"])
    y = layers.Conv2D(4, 3, padding="same", name="two")(inputs["right"])
    z = layers.ReLU()(layers.Add()([x, y]))
    z = layers.Conv2D(5, 3, name="three")(z)
    heads = {
        "reg": pooled(layers.ReLU()(z), 1, "reg"),
        "cls": pooled(layers.Conv2D(5, 3, name="four")(y), 3, "cls"),
    }
    return keras.Model(*nest(inputs, heads))


def features():
    """Outputs at full width that gates close channels of, one of them read on;
    one is returned twice, and an input passes straight through."""
    inputs = keras.Input((6, 6, 3), name="image")
    x = conv_norm_relu(inputs, 4, name="stem")
    first = layers.Add(name="first")([x, conv_norm_relu(x, 4, name="one")])
    x = layers.Add()([first, conv_norm_relu(first, 4, name="two")])
    second = layers.ReLU(name="second")(x)
    return keras.Model(inputs, [first, second, inputs, first])


def nested():
    """A head of two outputs, which Keras knows by the one name of the head."""
    inputs = keras.Input((6, 6, 4))
    x = layers.Conv2D(5, 3, name="inner")(inputs)
    head = keras.Model(
        inputs, [pooled(x, 2, "a"), pooled(x, 3, "b")], name="head"
    )
    image = keras.Input((6, 6, 3), name="image")
    return keras.Model(image, head(conv_norm_relu(image, 4, name="stem")))


def twice_called():
    """A layer without weights that makes both outputs."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    last = layers.Activation("sigmoid", name="last")
    return keras.Model(
        inputs, [last(pooled(x, 2, "a")), last(pooled(x, 3, "b"))]
    )


def dropped():
    """An output that a layer of training alone makes."""
    inputs = keras.Input((6, 6, 3))
    x = pooled(layers.Conv2D(4, 3, name="conv")(inputs), 2, "logits")
    return keras.Model(inputs, layers.Dropout(0.5, name="last")(x), name="net")


def sequential():
    return keras.Sequential(
        [
            keras.Input((6, 6, 3), name="image"),
            layers.Conv2D(4, 3),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2, name="logits"),
        ]
    )


NETWORKS = {
    "dict": lambda: two_heads(lambda i, o: (i, o)),
    "list": lambda: two_heads(lambda i, o: (list(i.values()), [*o.values()])),
    "deep": lambda: two_heads(
        lambda i, o: (i, {"y": [o["reg"]], "x": [o["cls"], o["reg"]]})
    ),
    "features": features,
    "nested": nested,
    "twice_called": twice_called,
    "dropped": dropped,
    "sequential": sequential,
}


def interface(model):
    """All by which a model is addressed from outside."""
    name, model = model.name, getattr(model, "_functional", None) or model
    inputs, outputs = model._inputs_struct, model._outputs_struct
    return {
        "name": name,
        "inputs": keras.tree.map_structure(
            lambda x: (x._keras_history.operation.name, x.shape, x.dtype),
            inputs,
        ),
        "outputs": keras.tree.map_structure(
            lambda x: (x._keras_history.operation.name, x.shape, x.dtype),
            outputs,
        ),
        "output_names": model.output_names,
        # A dict is equal to one of another order.
        "keys": [list(x) for x in (inputs, outputs) if isinstance(x, dict)],
    }


@pytest.mark.parametrize(
    ("kind", "connectivity"),
    [(kind, "mixed") for kind in NETWORKS]
    + [("dict", "regular"), ("features", "regular"), ("dropped", "regular")],
)
def test_names_and_structures_are_the_models_own(kind, connectivity, tmp_path):
    model = randomize(NETWORKS[kind]())
    expected = interface(model)
    gated = keras_bar.gate(model, connectivity=connectivity)
    assert interface(gated) == expected
    assert difference(open_gates(gated), model, inputs_for(model)) < 1e-6
    hard, small = assert_invariants(close_gates(gated))
    assert interface(hard) == interface(small) == expected
    for made in (gated, small):
        made.save(tmp_path / "made.keras")
        loaded = keras.models.load_model(tmp_path / "made.keras")
        assert interface(loaded) == expected
    again = keras_bar.gate(small, connectivity=connectivity)
    assert interface(again) == expected


def test_losses_go_by_the_names_of_outputs():
    model = two_heads(lambda i, o: (i, [o["cls"], o["reg"]]))
    model = keras_bar.gate(model)
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={
            "cls": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            "reg": "mse",
        },
        loss_weights={"cls": 1.0, "reg": 0.5},
        run_eagerly=True,
    )
    x = inputs_for(model, batch=8)
    y = {"reg": np.ones((8, 1)), "cls": np.zeros(8, int)}
    budget = keras_bar.callbacks.BudgetRegularizer(0.5)
    history = model.fit(
        x, y, batch_size=4, epochs=2, callbacks=[budget], verbose=0
    )
    assert {"cls_loss", "reg_loss"} <= set(history.history)
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    assert int(keras.ops.convert_to_numpy(state.step)) >= 3


@pytest.mark.parametrize("connectivity", ["mixed", "regular"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_the_budget_acts_once_when_all_noise_is_drawn(kind, connectivity):
    gated = keras_bar.gate(NETWORKS[kind](), connectivity=connectivity)
    assert_acts_last(gated)


def test_the_budget_waits_for_gates_that_come_later():
    """A model is gated once more, and one whose output a gate of
    its own makes."""
    model = two_heads(lambda i, o: (i, o))
    once = keras_bar.gate(model, skip=["one", "two", "three"])
    once.get_layer("budget_state").step.assign(3)
    gated = keras_bar.gate(once)
    assert len(gates_of(gated)) == 4
    assert gated.output_names == model.output_names
    assert int(gated.get_layer("budget_state").step.numpy()) == 3
    assert_acts_last(gated)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    model = keras.Model(inputs, keras_bar.layers.HardConcreteGate(name="z")(x))
    gated = keras_bar.gate(model)
    assert gated.output_names == ["z"]
    assert_acts_last(gated)


def assert_acts_last(gated):
    acts = []
    kinds = (BudgetState, ChannelGate)
    for layer in (x for x in gated.layers if isinstance(x, kinds)):
        layer.call = remembering(layer, acts)
    gated(inputs_for(gated), training=True)
    assert [isinstance(x, BudgetState) for x in acts] == [
        *[False] * len(gates_of(gated)),
        True,
    ]


def remembering(layer, acts):
    call = layer.call

    def remember(*args, **kwargs):
        acts.append(layer)
        return call(*args, **kwargs)

    return remember


def test_baselines_keep_names():
    model = two_heads(lambda i, o: (i, o))
    pruned = baselines.prune(model, baselines.weight_magnitude, 0.5)
    assert interface(pruned) == interface(model)
    wider = baselines.expand(model, 1e6)
    assert interface(wider) == interface(model)


# --- What a copy does not have ------------------------------------------------


@keras.saving.register_keras_serializable("tests")
class Choose(layers.Layer):
    """Adds a second input where there is one."""

    def call(self, x, y=None):
        return x if y is None else x + y

    def compute_output_shape(self, x_shape, y_shape=None):
        return x_shape


def test_optional_inputs_stay_optional():
    image = keras.Input((6, 6, 3), name="image")
    extra = keras.Input((6, 6, 4), name="extra", optional=True)
    x = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    x = layers.Conv2D(4, 3, padding="same")(Choose()(layers.ReLU()(x), extra))
    model = keras.Model({"image": image, "extra": extra}, pooled(x, 2, "y"))
    gated = close_gates(keras_bar.gate(model, skip=[]))
    small = keras_bar.compact(gated)
    x = np.ones((2, 6, 6, 3), "float32")
    for made in (gated, small):
        optional = [x._keras_history.operation.optional for x in made.inputs]
        assert optional == [True, False]
        assert made({"image": x, "extra": None}).shape == (2, 2)


class Trained(keras.Model):
    """A Functional model with a training of its own."""

    def train_step(self, data):
        return super().train_step(data)

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


HEAD = (layers.GlobalAveragePooling2D(), layers.Dense(2))


class Called(keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training)


def plain(cls=keras.Model):
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    return cls(inputs, pooled(x, 2, "logits"), name="plain")


def test_methods_that_a_copy_has_not_are_named():
    lost = "'plain'.*without its own `train_step`, `compute_loss`"
    with pytest.warns(UserWarning, match=lost) as found:
        gated = keras_bar.gate(plain(Trained))
    assert files_of(found) == [__file__]
    close_gates(gated)
    with pytest.warns(UserWarning, match=lost):
        keras_bar.compact(Trained(gated.inputs, gated.outputs, name="plain"))
    changed = plain()
    changed.test_step = lambda data: {}
    with pytest.warns(UserWarning, match="`test_step`"):
        keras_bar.gate(changed)


def test_plain_models_are_copied_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        keras_bar.compact(close_gates(keras_bar.gate(plain())))
        keras_bar.compact(close_gates(keras_bar.gate(sequential())))


def test_a_sequential_model_with_a_call_of_its_own_keeps_it():
    model = Called(
        [keras.Input((6, 6, 3)), layers.Conv2D(4, 3), *HEAD], name="odd"
    )
    pruned = baselines.prune(model, baselines.weight_magnitude, 1.0)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
    np.testing.assert_allclose(
        *(ops.convert_to_numpy(m(x)) for m in (pruned, model)), rtol=1e-5
    )
