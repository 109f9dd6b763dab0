"""Layers and models written in Python, as graphs of what they call.

The `call` of a subclassed layer runs once on symbolic tensors, so that its
sublayers and operations become visible. It is believed only if the graph then
computes what the layer computes, with other weights too, in inference and in
training.
"""

import inspect
import math
import threading

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import batch_sizes
from keras_bar.analysis import comparing
from keras_bar.analysis import heads_apart
from keras_bar.analysis import masks
from keras_bar.analysis import own_kernels
from keras_bar.analysis import recognizing
from keras_bar.analysis import symbolic_calls
from keras_bar.analysis.symbolic_calls import DoesNotRun
from keras_bar.analysis.symbolic_calls import Opaque as Opaque
from keras_bar.analysis.symbolic_calls import is_candidate as is_candidate
from keras_bar.layers import Parameter

# Symbolic calls change methods of Keras's classes for a while.
_LOCK = threading.RLock()
# Operations on weights that say something about positions, not channels.
_OF_POSITIONS = {"Add", "Take"}
# Attributes of layers that draw noise in training, unless all are 0.
_NOISE = ("rate", "dropout", "recurrent_dropout", "stddev")


def unroll(layer, args, kwargs, nested=False, rows=1):
    """The graph of a layer's call.

    Args:
        layer: Built `keras.Layer`, a subclassed `keras.Model` among them.
        args, kwargs: Arguments of the call, with a `keras.KerasTensor` in the
            place of every tensor.
        nested: Whether the graph's inputs are nested like the first argument,
            which then holds all of them.
        rows: Number of entries of the first axis per sample, which the layer
            may put along an axis of their own.

    Returns:
        A Functional `keras.Model` of the very sublayers, from these tensors, in
        a flat list unless `nested`, to the layer's outputs; and the places of
        these among everything that the layer returns, flat: it may return
        constants or None beside them.

    Raises:
        Opaque: If the layer cannot be unrolled.
    """
    with _LOCK:
        try:
            return _unroll(layer, args, kwargs, nested, rows)
        except DoesNotRun as error:
            failure = error
        try:
            return _unroll(layer, args, kwargs, nested, rows, sized=True)
        except Opaque:  # The first reason tells the user more.
            raise failure from None


def _unroll(layer, args, kwargs, nested, rows, sized=False):
    if not nested and (like := recognizing.recognized(layer, args, kwargs)):
        _verify(layer, like, [0], args, kwargs, comparing.EXAMPLES * rows)
        return like, [0]
    own = symbolic_calls.own_variables(layer)
    inner, places, incomplete = symbolic_calls.trace(
        layer, args, kwargs, nested, own, sized
    )
    for node in incomplete:
        # Keras can call it in a graph only if it is unrolled, too.
        unroll(node.operation, node.arguments.args, node.arguments.kwargs)
    _refuse_calls(inner)
    _refuse_ties(inner)
    _refuse_scales(layer, inner, own)
    divisor = batch_sizes.divisor((args, kwargs)) if sized else 1
    batch = comparing.EXAMPLES * math.lcm(divisor, rows)
    found = inner if nested else _with_heads_apart(layer, inner)
    if found is not inner:
        try:
            _verify(layer, found, places, args, kwargs, batch)
            return found, places
        except Opaque:
            pass
    _verify(layer, inner, places, args, kwargs, batch)
    return inner, places


def _with_heads_apart(layer, inner):
    """The graph of a layer in which heads have an axis of their own; the given
    one if that cannot be made."""
    with keras_internals.undisturbed(layer):
        try:
            return heads_apart.apart(inner, _inside)
        except Exception:  # Whatever Keras and the user's code raise.
            return inner


def _inside(node):
    """What `unroll` returns for a call in a graph, or None."""
    if not is_candidate(node.operation):
        return None
    arguments = node.arguments
    others = {x: y for x, y in arguments.kwargs.items() if x != "training"}
    try:
        return unroll(node.operation, arguments.args, others)
    except Opaque:
        return None


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
    return unroll(model, (inputs,), {}, nested=True)[0]


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
        missing = "is not built" if not model.built else "has no known shapes"
        raise Opaque(
            f"it {missing}: pass `inputs`, call it once on a batch, or build "
            "it for a shape with `model.build`"
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


def _refuse_ties(inner):
    """Raises `Opaque` for a weight that is used in two ways: copies of the two
    operations would no longer share it."""
    for op in inner.operations:
        shares = isinstance(op, Parameter) or own_kernels.is_product(op)
        for variable in op.variables if shares else ():
            users = [
                x
                for x in inner.operations
                if any(y is variable for y in getattr(x, "variables", ()))
            ]
            if len(users) > 1:
                raise Opaque(f"it uses {variable.name!r} in two ways")


def _refuse_scales(layer, inner, own):
    """Raises `Opaque` for a layer without sublayers that scales, shifts or
    filters channels by weights of its own: run as a whole, it shows more than
    in a graph. A layer that concatenates them to its input does not, nor does
    one that looks them up, multiplies matrices, or adds weights which differ
    between positions."""
    weights = [x for x in own.values() if not symbolic_calls.is_index(x)]
    if not weights or keras_internals.layers_inside(layer):
        return
    readers = set()
    for node in keras_internals.nodes_in_order(inner):
        makers = map(keras_internals.maker_of, node.input_tensors)
        if any(_is_matrix(x) for x in makers):
            readers.add(type(node.operation).__name__)
        concatenates = type(node.operation).__name__ == "Concatenate"
        if concatenates or own_kernels.is_product(node.operation):
            return
    if not readers & _OF_POSITIONS:
        raise Opaque(f"it has a variable of its own, {weights[0].name!r}")


def _is_matrix(op):
    """Whether an operation returns a weight with several sizes above 1."""
    if not isinstance(op, Parameter):
        return False
    return sum(x != 1 for x in op.shape) > 1


def _refuse_calls(inner):
    """Raises `Opaque` for calls that a graph does not repeat: a sublayer in a
    mode of its own that matters to it, because a Functional model runs all of
    its layers in the same; and attention whose values differ in size from its
    keys, because Keras infers the shape of its output wrongly."""
    for node in keras_internals.nodes_in_order(inner):
        if type(node.operation).__name__ == "DotProductAttention":
            _, key, value, *_ = node.input_tensors
            if key.shape[-1] != value.shape[-1]:
                raise Opaque("its values differ in size from its keys")
        mode = node.arguments.kwargs.get("training")
        parameter = inspect.signature(node.operation.call).parameters.get(
            "training"
        )
        if mode is None or not parameter or mode == parameter.default:
            continue
        called = node.operation
        for part in (called, *keras_internals.layers_inside(called)):
            if _depends_on_mode(part):
                raise Opaque(
                    f"it calls {called.name!r} with `training={mode}` in any "
                    f"mode, on which {part.name!r} depends; pass its own "
                    "`training`, and freeze batch normalization by its "
                    "attribute `trainable`"
                )


def _depends_on_mode(layer):
    """Whether a layer computes something else in training. One that consists of
    others does not by itself, as far as its graph is right."""
    parameters = inspect.signature(layer.call).parameters
    if "training" not in parameters or keras_internals.layers_inside(layer):
        return False
    if isinstance(layer, keras.layers.BatchNormalization):
        return layer.trainable
    noise = [getattr(layer, x) for x in _NOISE if hasattr(layer, x)]
    return any(noise) or not noise


def _verify(layer, inner, places, args, kwargs, batch):
    """Raises `Opaque` unless the graph computes what the layer computes, on a
    batch of this size."""
    for size in comparing.SIZES:
        try:
            _compare(layer, inner, places, args, kwargs, batch, size)
            return
        except Opaque:
            raise
        except Exception as error:  # It may divide its input: another size.
            failure = error
        if all(None not in x.shape[1:] for x in inner.inputs):
            break
    raise DoesNotRun(
        f"it does not run on random input: {comparing.first(failure)}"
    )


def _compare(layer, inner, places, args, kwargs, batch, size):
    rng = np.random.default_rng(0)
    entries = _entries(layer)
    flat = []

    def concrete(x):
        if not symbolic_calls.is_spec(x):
            return x
        shape = [
            (size if i else batch) if d is None else d
            for i, d in enumerate(x.shape)
        ]
        array = comparing.random(rng, shape, str(x.dtype), entries)
        tensor = ops.cast(array, x.dtype)
        flat.append(tensor)
        return tensor

    # Not mapped: on PyTorch Keras maps dicts in another order.
    leaves = [concrete(x) for x in tree.flatten((args, kwargs))]
    args, kwargs = tree.pack_sequence_as((args, kwargs), leaves)
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
        masks.attach(layer, args, kwargs)
        with _scope(changed) as scope, comparing.same_noise():
            expected = layer(*args, **{**kwargs, "training": training})
        losses = scope.losses
        with _scope(changed) as scope, comparing.same_noise():
            found = inner(given, training=training)
        if not comparing.same(_sum(losses), _sum(scope.losses)):
            raise Opaque("its losses are others than those that it shows")
        flat = [x for x in tree.flatten(expected) if x is not None]
        expected = [flat[i] for i in places]
        pairs = zip(expected, tree.flatten(found), strict=True)
        if not all(comparing.same(a, b) for a, b in pairs):
            when = "training" if training else "inference"
            raise Opaque(
                "its `call` computes something else on symbolic tensors than "
                f"on numbers, in {when}"
            )


def _entries(layer):
    """Number of entries that every table in a layer has, of those that it may
    look up integers in."""
    embeddings = [
        x.input_dim
        for x in (layer, *keras_internals.layers_inside(layer))
        if isinstance(x, keras.layers.Embedding)
    ]
    if not embeddings:
        return 2
    own = symbolic_calls.own_variables(layer).values()
    tables = [x.shape[0] for x in own if len(x.shape) > 1]
    return max(min(embeddings + tables), 2)


def _scope(values):
    """A scope with other values of variables, which collects added losses."""
    return keras.StatelessScope(state_mapping=values, collect_losses=True)


def _sum(losses):
    """The sum of all entries of losses, a scalar tensor."""
    arrays = (ops.convert_to_numpy(ops.cast(x, "float32")) for x in losses)
    return ops.convert_to_tensor(sum(x.sum() for x in arrays), "float32")
