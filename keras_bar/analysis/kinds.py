"""Kinds of models: which have a graph of layers, and what it leaves out."""

import keras

from keras_bar import keras_internals

# Methods that define how a model is trained, evaluated or run.
_METHODS = (
    "train_step",
    "test_step",
    "predict_step",
    "compute_loss",
    "compute_metrics",
)


def is_sequential(model):
    return isinstance(model, keras.Sequential)


def is_functional(op):
    """Whether a model computes exactly what its graph says. A subclass with its
    own `call` may do anything, so it counts as one opaque layer."""
    if not isinstance(op, keras.Model):
        return False
    plain = ("Functional.call", "Sequential.call")
    built = not is_sequential(op) or keras_internals.graph_of(op)
    return bool(built) and type(op).call.__qualname__ in plain


def is_carrier(op):
    """Whether a model returns its input, to which it may attach a mask."""
    if not is_functional(op) or type(op).__name__ != "Functional":
        return False
    parts = [type(x) for x in op.operations]
    return parts == [keras.layers.InputLayer, keras.layers.Identity]


def functional(model):
    """The Functional model that holds the graph of a model."""
    return keras_internals.graph_of(model) if is_sequential(model) else model


def overridden_methods(model):
    """Names of the training and inference methods that a subclass, or an
    assignment, replaced: a graph does not contain them."""
    base = keras.Sequential if is_sequential(model) else keras.Model
    return [
        name
        for name in _METHODS
        if getattr(getattr(model, name), "__func__", None)
        is not getattr(base, name)
    ]


def check_is_network(model):
    """Raises a ValueError unless this is a built model of layers."""
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Only a Keras model can be analysed. "
            "Expected a built `keras.Model`. "
            f"Received: {model!r} (of type {type(model)})"
        )
    if isinstance(model, keras.distillation.Distiller):
        raise ValueError(
            "A distiller trains a network and is not a network itself. "
            "Expected the network that it trains: pass `distiller.student`. "
            f"Received: {model.name!r} (of type {type(model)})"
        )
    if is_sequential(model) and not model.built:
        raise ValueError(
            "This Sequential model has no graph of layers yet. "
            "Expected a built model: begin it with `keras.Input`, or call it "
            f"once on a batch. Received: {model.name!r}"
        )


def check_inputs(model, inputs):
    """Raises a ValueError unless these are inputs for a subclassed model."""
    if inputs is None:
        return
    if is_functional(model):
        raise ValueError(
            "The model has inputs already. Expected `inputs` for a subclassed "
            f"model alone. Received: inputs={inputs!r} for {model.name!r}"
        )
    leaves = keras.tree.flatten(inputs)
    if not leaves or not all(isinstance(x, keras.KerasTensor) for x in leaves):
        raise ValueError(
            "The inputs are no symbolic tensors. Expected `keras.Input(shape)` "
            f"or a list or dict of such. Received: inputs={inputs!r}"
        )
