"""Layers and models written in Python, as graphs of what they call.

The `call` of a subclassed layer runs once on symbolic tensors, so that its
sublayers and operations become visible. It is believed only if the graph then
computes what the layer computes, in inference and in training.
"""

import inspect
import weakref

import keras
import numpy as np
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.analysis.counting import is_known

# Examples on which a graph is compared with its layer; and the sizes that are
# tried for dimensions that are unknown, since layers divide their inputs.
EXAMPLES = 2
SIZES = (16, 32, 64)
# Largest difference, relative to the largest output.
TOLERANCE = 1e-4

# What was found for a layer, by the specification of its inputs.
_KNOWN: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class Opaque(Exception):
    """A layer cannot be unrolled, for the reason given."""


def is_candidate(op):
    """Whether an operation may hide a graph: a layer of the user's, or a
    `Lambda`. Keras's own layers are as small as they get."""
    if not isinstance(op, keras.Layer) or kinds.is_functional(op):
        return False
    return isinstance(op, keras.layers.Lambda) or not is_known(op)


def unroll(layer, args, kwargs):
    """The graph of a layer's call.

    Args:
        layer: Built `keras.Layer`, a subclassed `keras.Model` among them.
        args, kwargs: Arguments of the call, with a `keras.KerasTensor` in the
            place of every tensor.

    Returns:
        A Functional `keras.Model` of the very sublayers. Its inputs are the
        tensors among the arguments, nested as these if there is a single one.

    Raises:
        Opaque: If the layer cannot be unrolled.
    """
    leaves = [x for x in tree.flatten((args, kwargs)) if _is_spec(x)]
    others = tree.map_structure(
        lambda x: None if _is_spec(x) else repr(x), (args, kwargs)
    )
    key = str([(tuple(x.shape), str(x.dtype)) for x in leaves] + [others])
    known = _KNOWN.setdefault(layer, {})
    if key not in known:
        try:
            known[key] = _unroll(layer, args, kwargs)
        except Opaque as error:
            known[key] = error
    if isinstance(known[key], Opaque):
        raise known[key]
    return known[key]


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
    return unroll(model, (inputs,), {})


def _built_for(model):
    """The inputs for which a model was built, as `keras.KerasTensor`s."""
    shapes = keras_internals.build_shapes(model) if model.built else None
    if not shapes:
        raise Opaque(
            "it is not built. Expected a model that was called once on a "
            "batch, or its `inputs`"
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


def _unroll(layer, args, kwargs):
    _refuse_state(layer)
    inner, traces = None, {}
    accepts = "training" in inspect.signature(layer.call).parameters
    for training in (None, True, False) if accepts else (None,):
        found = _trace(layer, args, kwargs, training)
        traces[training] = _skeleton(found, layer)
        inner = inner or found
        if traces[training] != traces[None]:
            raise Opaque("its `call` takes another way in training")
    _verify(layer, inner, args, kwargs)
    return inner


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


def _trace(layer, args, kwargs, training):
    """The Functional model of one symbolic call."""
    inputs = []

    def symbolic(path, x):
        if not _is_spec(x):
            return x
        key = path[-1] if isinstance(path[-1], str) else None
        tensor = keras.Input(
            batch_shape=tuple(x.shape), dtype=x.dtype, name=key
        )
        inputs.append(tensor)
        return _cast(tensor, layer)

    with keras_internals.undisturbed(layer):
        paths = tree.flatten_with_path((args, kwargs))
        new_args, new_kwargs = tree.pack_sequence_as(
            (args, kwargs), [symbolic(path, x) for path, x in paths]
        )
        if training is not None:
            new_kwargs = {**new_kwargs, "training": training}
        try:
            outputs = layer.call(*new_args, **new_kwargs)
        except Exception as error:  # Whatever the user's code raises.
            reason = str(error).strip().split("\n")[0]
            raise Opaque(
                "its `call` does not run on symbolic tensors "
                f"({type(error).__name__}: {reason[:200]})"
            ) from error
        flat = tree.flatten(outputs)
        if not flat or not all(isinstance(x, keras.KerasTensor) for x in flat):
            raise Opaque("its `call` returns something other than tensors")
        try:
            nested = _nested(inputs, args, kwargs)
            inner = keras.Model(nested, outputs, name=layer.name)
        except ValueError as error:
            raise Opaque("its outputs do not follow from its inputs") from error
    for operation in inner.operations:
        for leaves in keras_internals.arguments_of_calls(operation):
            if any(isinstance(x, keras.Variable) for x in leaves):
                raise Opaque("its `call` computes with variables")
    return inner


def _nested(inputs, args, kwargs):
    """Flat inputs, nested like the one argument that holds them all, if it
    holds nothing else."""
    given = [x for x in (*args, *kwargs.values()) if x is not None]
    holds_all = len(given) == 1 and len(tree.flatten(given)) == len(inputs)
    return tree.pack_sequence_as(given[0], inputs) if holds_all else inputs


def _cast(tensor, layer):
    """A layer's input as `Layer.__call__` would cast it."""
    floating = keras.backend.is_float_dtype(tensor.dtype)
    if layer.autocast and floating and tensor.dtype != layer.compute_dtype:
        return ops.cast(tensor, layer.compute_dtype)
    return tensor


def _skeleton(model, layer):
    """What a model computes, comparable: its operations and arguments."""
    order: dict = {}
    known = {id(x) for x in keras_internals.layers_inside(layer)}

    def plain(x):
        if isinstance(x, keras.KerasTensor):
            return order.setdefault(id(x), len(order))
        return repr(x)

    found = []
    for node in keras_internals.nodes_in_order(model):
        op, arguments = node.operation, node.arguments
        kwargs = {k: v for k, v in arguments.kwargs.items() if k != "training"}
        # A layer without weights may be new in every call.
        key = id(op) if id(op) in known else _attributes(op)
        given = tree.map_structure(plain, (arguments.args, kwargs))
        found.append((type(op).__name__, key, str(given)))
        for x in node.outputs:
            plain(x)
    return found


def _attributes(op):
    """The settings of an operation or a layer, text."""
    if isinstance(op, keras.Layer):
        return str({**op.get_config(), "name": ""})
    names = inspect.signature(type(op).__init__).parameters
    return str({x: repr(getattr(op, x, None)) for x in names if x != "self"})


def _verify(layer, inner, args, kwargs):
    """Raises `Opaque` unless the graph computes what the layer computes."""
    for size in SIZES:
        try:
            _compare(layer, inner, args, kwargs, size)
            return
        except Opaque:
            raise
        except Exception as error:  # It may divide its input: another size.
            failure = error
        if all(None not in x.shape[1:] for x in inner.inputs):
            break
    reason = str(failure).strip().split("\n")[0]
    raise Opaque(f"it does not run on random input ({reason[:200]})")


def _compare(layer, inner, args, kwargs, size):
    rng = np.random.default_rng(0)
    flat = []

    def concrete(x):
        if not _is_spec(x):
            return x
        shape = (EXAMPLES, *(size if d is None else d for d in x.shape[1:]))
        tensor = ops.cast(_random(rng, shape, str(x.dtype)), x.dtype)
        flat.append(tensor)
        return tensor

    args, kwargs = tree.map_structure(concrete, (args, kwargs))
    given = tree.pack_sequence_as(inner.input, flat)
    for training in (False, True):
        # The scopes discard updates of batch statistics and seeds, so that
        # both start from the same.
        with keras.StatelessScope():
            expected = layer(*args, **{**kwargs, "training": training})
        with keras.StatelessScope():
            found = inner(given, training=training)
        for a, b in zip(
            tree.flatten(expected), tree.flatten(found), strict=True
        ):
            a, b = (
                ops.convert_to_numpy(ops.cast(x, "float32")) for x in (a, b)
            )
            scale = max(float(np.max(np.abs(a), initial=0.0)), 1e-6)
            same = a.shape == b.shape and np.allclose(
                a, b, rtol=0, atol=TOLERANCE * scale, equal_nan=True
            )
            if not same:
                when = "training" if training else "inference"
                raise Opaque(
                    f"its `call` on symbolic tensors computes something else "
                    f"than on numbers, in {when}"
                )


def _random(rng, shape, dtype):
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        return rng.integers(0, 2, shape)  # Valid as indices of any table.
    return rng.normal(size=shape).astype("float32")
