"""Closes gates at random, and asserts the invariants of the results."""

import keras
import numpy as np
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from keras_bar.costs import SUMS
from keras_bar.layers import BudgetState
from keras_bar.layers import ChannelGate
from keras_bar.layers.channel_gate import LEARNING


def randomize(model, seed=0):
    """Gives a model weights like those of a trained one, the same on every
    backend: no statistic or bias is 0."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers():
        for weight in layer.weights if not layer._layers else ():
            name, shape = weight.name, tuple(weight.shape)
            if name in ("gamma", "moving_variance", "variance"):
                weight.assign(rng.uniform(0.7, 1.3, shape))
            elif name in ("beta", "moving_mean", "bias", "mean", "alpha"):
                weight.assign(rng.normal(0.0, 0.3, shape))
            elif name.endswith("kernel"):
                scale = np.sqrt(2.0 * shape[-1] / np.prod(shape))
                weight.assign(rng.normal(0.0, scale, shape))
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return model


def gates_of(model):
    """The gates of a model, in the order of its layers."""
    return [x for x in model.layers if isinstance(x, ChannelGate)]


def set_gate(gate, log_alpha):
    """Fixes a gate as if it had learned `log_alpha`, even if it was fixed."""
    gate.fixed_value.assign(np.full(gate.fixed_value.shape, LEARNING))
    gate.log_alpha.assign(log_alpha)
    gate.fix()


def open_gates(model):
    """Opens every gate wide: all factors are 1."""
    for gate in gates_of(model):
        set_gate(gate, np.full(gate.log_alpha.shape, 9.0))
    return model


def close_gates(model, seed=0, share=0.5, dead=()):
    """Closes a random share of the channels, at most all but one of a gate.

    Args:
        model: Gated model.
        seed: Integer seed.
        share: Float, the share to be closed.
        dead: Names of gates that close entirely.
    """
    rng = np.random.default_rng(seed)
    for gate in gates_of(model):
        size = gate.log_alpha.shape[0]
        alive = rng.random(size) >= share
        alive[rng.integers(size)] = True
        alive &= gate.name not in dead
        # `open_gates` may have fixed the channels, and `fix` would keep them.
        gate.fixed_value.assign(np.full(size, LEARNING))
        # Each channel gets a different factor, from 0.1 to 1.
        set_gate(gate, np.where(alive, rng.uniform(-0.9, 1.5, size), -5.0))
        np.testing.assert_array_equal(gate.alive(), alive)
    return model


def recalibrate(model):
    """Sets the statistics of batch normalization to those of a random batch.

    With other statistics a pruned network may be nearly constant, and two such
    networks are the same whatever else they compute.
    """
    norms = [
        x for x in model.layers if isinstance(x, layers.BatchNormalization)
    ]
    momenta = [x.momentum for x in norms]
    for norm in norms:
        norm.momentum = 0.0
    x = inputs_for(model, batch=8, seed=1)
    model(x, training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for y in outputs_of(model, x):
        assert np.std(y, axis=0).max() > 1e-3 * np.abs(y).max()
    return model


def inputs_for(model, batch=2, seed=0):
    """A random batch, nested like the inputs of the model; unknown sizes are
    12. Integers are words from 1 to 4, and 0 at the end of a sentence or at its
    beginning."""
    rng = np.random.default_rng(seed)

    def draw(x):
        shape = (batch, *(12 if d is None else d for d in x.shape[1:]))
        if "int" in str(x.dtype):
            words = rng.integers(1, 5, shape)
            words[::2, -(shape[-1] // 3) :] = 0
            words[1::2, : shape[-1] // 3] = 0
            return words.astype(x.dtype)
        return rng.normal(size=shape).astype("float32")

    source = getattr(model, "_functional", None) or model
    return keras.tree.map_structure(draw, source._inputs_struct)


def outputs_of(model, x):
    """Flat list of float64 arrays."""
    return [
        ops.convert_to_numpy(ops.cast(y, "float32")).astype("float64")
        for y in keras.tree.flatten(model(x, training=False))
    ]


def losses_of(model):
    """The sum of the losses of users that a model added in its last call."""
    layers_of = [
        x for x in model.layers if isinstance(x, keras_bar.layers.AddedLoss)
    ]
    return sum(float(ops.sum(x)) for layer in layers_of for x in layer.losses)


def difference(a, b, x):
    """Largest difference of two models' outputs, relative to the largest
    output."""
    return distance(outputs_of(a, x), outputs_of(b, x))


def distance(found, expected):
    """The same of the outputs."""
    return max(
        np.abs(y - z).max() / (np.abs(z).max() + 1e-12)
        for y, z in zip(found, expected, strict=True)
    )


def control_of(model, regularizer):
    """The control of a regularizer, and the state it acts on."""
    regularizer.set_params({"epochs": 1, "steps": 10})
    regularizer.set_model(model)
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    return regularizer.make_control(10), state


def asked(model, criterion, **options):
    """Dicts from name to the channels that a criterion scores, and to its
    scores."""
    seen, scores = {}, {}

    def remember(channels):
        seen[channels.name] = channels
        scores[channels.name] = criterion(channels)
        return scores[channels.name]

    baselines.prune(model, remember, 0.5, **options)
    return seen, scores


def files_of(found):
    """The files that warnings of this package refer to."""
    return [x.filename for x in found if x.category is UserWarning]


def numbers(cost):
    """The metrics of a cost that are sums over layers. Of the peak of memory,
    `peak_memory_test` knows where it is exact."""
    return {metric: getattr(cost, metric) for metric in SUMS}


BOTH = ("regular", "mixed")


def assert_invariants(
    gated, connectivities=("mixed",), tolerance=1e-4, measure=True, path=None
):
    """Asserts the invariants I1, I2 and I4 on a gated model.

    Args:
        gated: Gated model, whose gates may still learn.
        connectivities: The connectivities of the compact models.
        tolerance: Float, relative difference of outputs.
        measure: Whether the model's costs can be measured.
        path: Where to save the compact model, or None.

    Returns:
        The hard-pruned and the compact model.
    """
    x = inputs_for(gated)
    hard = keras_bar.hard_prune(gated)
    expected = outputs_of(hard, x)
    if not keras_bar.explain(hard).adjustments:
        assert distance(expected, outputs_of(gated, x)) < tolerance
    added = losses_of(hard)
    cost = keras_bar.measure_cost(gated) if measure else None
    for connectivity in connectivities:
        small = keras_bar.compact(gated, connectivity=connectivity)
        assert distance(outputs_of(small, x), expected) < tolerance
        assert np.allclose(losses_of(small), added, rtol=1e-4, atol=1e-6)
        assert not gates_of(small)
        if measure:
            wanted = cost.regular if connectivity == "regular" else cost
            found = keras_bar.measure_cost(small)
            assert numbers(wanted) == numbers(found)
            assert found.params == small.count_params()
    if path is not None:
        small.save(path)
        loaded = keras.models.load_model(path)
        assert difference(loaded, small, x) < 1e-6
    return hard, small


def conv_norm_relu(x, filters, kernel_size=3, strides=1, **kwargs):
    """Convolution, batch normalization and ReLU."""
    kwargs.setdefault("padding", "same")
    x = layers.Conv2D(filters, kernel_size, strides, use_bias=False, **kwargs)(
        x
    )
    return layers.ReLU()(layers.BatchNormalization()(x))


def squeezed(filters=8):
    """An inverted residual block with squeeze-and-excitation behind the
    depthwise convolution, as MobileNetV3 has it."""
    inputs = keras.Input((8, 8, 3))
    stem = conv_norm_relu(inputs, filters, name="stem")
    x = conv_norm_relu(stem, 3 * filters, 1, name="expand")
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.GlobalAveragePooling2D(keepdims=True)(x)
    y = layers.Conv2D(filters, 1, activation="relu", name="squeeze")(y)
    y = layers.Conv2D(3 * filters, 1, activation="sigmoid", name="excite")(y)
    x = layers.Conv2D(filters, 1, name="project")(layers.Multiply()([x, y]))
    x = layers.Add()([stem, layers.BatchNormalization()(x)])
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    return randomize(keras.Model(inputs, x))
