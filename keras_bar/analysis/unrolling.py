"""Layers and models written in Python, as graphs of what they call.

The `call` of a subclassed layer runs once on symbolic tensors, so that its
sublayers and operations become visible. It is believed only if the graph then
computes what the layer computes, with other weights too, in inference and in
training.
"""

import inspect

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import comparing
from keras_bar.analysis import kinds
from keras_bar.analysis import replaying
from keras_bar.analysis import rule_registry
from keras_bar.analysis import static_shapes
from keras_bar.analysis.counting import is_known

# Keras's own layers that consist of others.
COMPOSED = (
    keras.layers.Lambda,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
)


class Opaque(Exception):
    """A layer cannot be unrolled, for the reason given."""


def is_candidate(op):
    """Whether an operation may hide a graph: a layer of the user's that has no
    rule, a `Lambda`, or attention. Keras's other layers consist of no
    others, or have a rule."""
    if not isinstance(op, keras.Layer) or kinds.is_functional(op):
        return False
    if rule_registry.is_registered(op):
        return False
    return isinstance(op, COMPOSED) or not is_known(op)


def unroll(layer, args, kwargs, nested=False):
    """The graph of a layer's call.

    Args:
        layer: Built `keras.Layer`, a subclassed `keras.Model` among them.
        args, kwargs: Arguments of the call, with a `keras.KerasTensor` in the
            place of every tensor.
        nested: Whether the graph's inputs are nested like the first argument,
            which then holds all of them.

    Returns:
        A Functional `keras.Model` of the very sublayers, from these tensors, in
        a flat list unless `nested`, to the layer's outputs.

    Raises:
        Opaque: If the layer cannot be unrolled.
    """
    _refuse_state(layer)
    inner = _trace(layer, args, kwargs, nested)
    _refuse_calls(inner)
    _verify(layer, inner, args, kwargs)
    return inner


def unroll_model(model, inputs=None):
    """The graph of a subclassed model.

    Args:
        model: `keras.Model` with a `call` of its own.
        inputs: Structure of `keras.Input`, the first argument of its `call`;
            by default like those that it was built for.

    Returns:
        A Functional `keras.Model` of its very layers.

    Raises:
        Opaque: If the model cannot be unrolled.
    """
    if inputs is None:
        inputs = _built_for(model)
    elif not model.built:
        model(inputs)  # Builds it; the symbolic outputs are not needed.
    return unroll(model, (inputs,), {}, nested=True)


def _built_for(model):
    """The inputs for which a model was built, as `keras.KerasTensor`s."""
    required = [
        x.name
        for x in inspect.signature(model.call).parameters.values()
        if x.default is x.empty and x.kind is x.POSITIONAL_OR_KEYWORD
    ]
    if len({*required} - {"training", "mask"}) > 1:
        raise Opaque(
            f"its `call` takes {len(required)} arguments; a model has one, "
            "which may be a list or a dict of tensors"
        )
    shapes = keras_internals.build_shapes(model) if model.built else None
    if not shapes:
        raise Opaque(
            "it is not built: call it once on a batch, or build it for a shape "
            "with `model.build`"
        )

    def spec(shape):
        return keras.KerasTensor((None, *shape[1:]), keras.config.floatx())

    return _map_shapes(spec, next(iter(shapes.values())))


def _map_shapes(function, shapes):
    """Applies a function to every shape of a structure of shapes."""
    if isinstance(shapes, dict):
        return {x: _map_shapes(function, y) for x, y in shapes.items()}
    if all(x is None or isinstance(x, int) for x in shapes):
        return function(shapes)
    return [_map_shapes(function, x) for x in shapes]


def _is_spec(x):
    return isinstance(x, keras.KerasTensor)


def _refuse_state(layer):
    """Raises `Opaque` for what a graph of sublayers would leave out."""
    inside = {
        id(x)
        for sublayer in keras_internals.layers_inside(layer)
        for x in sublayer.variables
    }
    own = [x for x in layer.variables if id(x) not in inside]
    if own:
        raise Opaque(f"it has a variable of its own, {own[0].name!r}")
    if getattr(layer, "activity_regularizer", None) is not None:
        raise Opaque("it has an activity regularizer")
    if isinstance(layer, keras.layers.Lambda):
        captured = inspect.getclosurevars(layer.function)
        for name, value in {**captured.nonlocals, **captured.globals}.items():
            if isinstance(value, keras.Layer | keras.Variable):
                raise Opaque(f"its function uses {name!r} from outside")


def _trace(layer, args, kwargs, nested):
    """The Functional model of one symbolic call, with inputs as nested as the
    first argument or flat."""
    inputs = []

    def symbolic(path, x):
        if not _is_spec(x):
            return x
        key = path[-1] if nested and isinstance(path[-1], str) else None
        tensor = keras.Input(
            batch_shape=tuple(x.shape),
            dtype=x.dtype,
            name=key and key.replace("/", "_"),
        )
        inputs.append(tensor)
        return _cast(tensor, layer)

    with keras_internals.undisturbed(layer):
        paths = tree.flatten_with_path((args, kwargs))
        new_args, new_kwargs = tree.pack_sequence_as(
            (args, kwargs), [symbolic(path, x) for path, x in paths]
        )
        if "training" in inspect.signature(layer.call).parameters:
            # The mode is that in which the graph will run, not the default.
            new_kwargs.setdefault("training", None)
        sublayers = keras_internals.layers_inside(layer)
        try:
            with static_shapes.keep_sizes(sublayers):
                outputs = layer.call(*new_args, **new_kwargs)
        except Exception as error:  # Whatever the user's code raises.
            raise Opaque(
                "its `call` does not run on symbolic tensors: "
                f"{comparing.first(error)}"
            ) from None
        flat = tree.flatten(outputs)
        if not flat or not all(map(_is_spec, flat)):
            raise Opaque("its `call` returns something other than tensors")
        if nested:
            inputs = tree.pack_sequence_as(args[0], inputs)
        try:
            inner = replaying.functional(inputs, outputs, layer.name)
        except ValueError as error:
            raise Opaque(
                f"its `call` makes no graph of layers: {comparing.first(error)}"
            ) from None
    for operation in inner.operations:
        for leaves in keras_internals.arguments_of_calls(operation):
            if any(isinstance(x, keras.Variable) for x in leaves):
                raise Opaque("its `call` computes with variables")
    return inner


def _cast(tensor, layer):
    """A layer's input as `Layer.__call__` would cast it."""
    floating = keras.backend.is_float_dtype(tensor.dtype)
    if layer.autocast and floating and tensor.dtype != layer.compute_dtype:
        return ops.cast(tensor, layer.compute_dtype)
    return tensor


def _refuse_calls(inner):
    """Raises `Opaque` for calls that a graph does not repeat: a sublayer in a
    mode of its own, because a Functional model runs all of its layers in the
    same; and attention whose values differ in size from its keys, because
    Keras infers the shape of its output wrongly."""
    for node in keras_internals.nodes_in_order(inner):
        if type(node.operation).__name__ == "DotProductAttention":
            _, key, value, *_ = node.input_tensors
            if key.shape[-1] != value.shape[-1]:
                raise Opaque("its values differ in size from its keys")
        mode = node.arguments.kwargs.get("training")
        parameter = inspect.signature(node.operation.call).parameters.get(
            "training"
        )
        if mode is not None and parameter and mode != parameter.default:
            raise Opaque(
                f"it calls {node.operation.name!r} with `training={mode}` in "
                "any mode; pass its own `training`, and freeze a layer by its "
                "attribute `trainable`"
            )


def _verify(layer, inner, args, kwargs):
    """Raises `Opaque` unless the graph computes what the layer computes."""
    for size in comparing.SIZES:
        try:
            _compare(layer, inner, args, kwargs, size)
            return
        except Opaque:
            raise
        except Exception as error:  # It may divide its input: another size.
            failure = error
        if all(None not in x.shape[1:] for x in inner.inputs):
            break
    raise Opaque(f"it does not run on random input: {comparing.first(failure)}")


def _compare(layer, inner, args, kwargs, size):
    rng = np.random.default_rng(0)
    flat = []

    def concrete(x):
        if not _is_spec(x):
            return x
        shape = (
            comparing.EXAMPLES,
            *(size if d is None else d for d in x.shape[1:]),
        )
        tensor = ops.cast(comparing.random(rng, shape, str(x.dtype)), x.dtype)
        flat.append(tensor)
        return tensor

    args, kwargs = tree.map_structure(concrete, (args, kwargs))
    given = tree.pack_sequence_as(inner.input, flat)
    # With other weights: what was computed from them while the layer was traced
    # is a constant of the graph. Seeds stay, and what the layers update in the
    # scopes is discarded, so that both draw the same noise.
    changed = [
        (x, comparing.changed(x, rng))
        for x in layer.variables
        if keras.backend.is_float_dtype(x.dtype)
    ]
    for training in (False, True):
        scope = keras.StatelessScope(state_mapping=changed)
        with scope, comparing.same_noise():
            expected = layer(*args, **{**kwargs, "training": training})
        scope = keras.StatelessScope(state_mapping=changed)
        with scope, comparing.same_noise():
            found = inner(given, training=training)
        pairs = zip(tree.flatten(expected), tree.flatten(found), strict=True)
        if not all(comparing.same(a, b) for a, b in pairs):
            when = "training" if training else "inference"
            raise Opaque(
                "its `call` computes something else on symbolic tensors than "
                f"on numbers, in {when}"
            )
