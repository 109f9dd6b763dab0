"""Copies of operations: with the same configuration, and the same state."""

import contextlib
import inspect

import keras
import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis import static_shapes

# Ends of the names of arguments that take a function, or an object that is
# called like one.
_TAKE_OBJECTS = ("activation", "initializer", "regularizer", "constraint")


def clone(op, name=None, node=None, **changes):
    """A new operation with the same configuration, without weights.

    Args:
        op: A layer or a `keras.ops` operation.
        name: Name of the clone.
        node: `Node` whose call the clone will repeat. Sizes of its output that
            the configuration leaves open become part of it.
        **changes: Configuration entries to change.
    """
    if node is not None and isinstance(op, keras.layers.EinsumDense):
        changes.setdefault("output_shape", static_shapes.full_shape_of(node))
    if node is not None and node.hides_mask:
        changes["mask_zero"] = False
    is_layer = isinstance(op, keras.layers.Layer)
    config = {**config_of(op), **changes} if is_layer else changes
    with named_in_errors(op):
        if not is_layer:
            new = _clone_operation(op, changes)
        elif isinstance(op, keras.layers.Lambda):
            # The function comes from this very process, so it is safe.
            new = type(op).from_config(config, safe_mode=False)
        else:
            new = _from_config(type(op), config)
    if name is not None:
        new.name = name
    if is_layer:
        _hand_on(op, new)
        new.trainable = op.trainable
        # Users may set it from outside.
        new.supports_masking = op.supports_masking
    return new


def config_of(layer):
    """The configuration of a layer. What the user wrote in it, such as the
    function of an activation, is the very object: Keras only finds functions
    and classes again that are registered, and keeps no `functools.partial`.

    Raises:
        ValueError: If the layer does not describe itself.
    """
    own = [
        (part, name, x)
        for part in (layer, *_wrapped(layer))
        for name, x in _objects_of_the_user(part)
    ]
    # `get_config` would fail at some of them.
    for part, name, _ in own:
        vars(part)[name] = _placeholder(name)
    try:
        with named_in_errors(layer):
            config = _described(layer)
    finally:
        for part, name, x in own:
            vars(part)[name] = x
    # A recurrent layer describes its cell as itself.
    described = (layer, getattr(layer, "cell", None))
    found = {
        name.lstrip("_"): x
        for part, name, x in own
        if any(part is y for y in described)
    }
    return {**config, **{x: found[x] for x in found if x in config}}


def _placeholder(name):
    """What an argument of this name may be instead."""
    if name.endswith("activation"):
        return keras.activations.linear
    return keras.initializers.Zeros() if name.endswith("initializer") else None


def _described(layer):
    """The configuration of a layer, from itself or from its attributes."""
    try:
        return layer.get_config()
    except NotImplementedError:
        config = _from_attributes(layer)
        if config is None:
            raise
        return config


def _from_attributes(layer):
    """The configuration of a layer without `get_config` which was given a
    policy instead of the name of one, so that Keras cannot tell its arguments:
    its attributes of the same names. None unless these are numbers and text,
    and make the same layer."""
    parameters = inspect.signature(type(layer).__init__).parameters.values()
    named = {
        x.name
        for x in list(parameters)[1:]
        if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)
    } - {"name", "dtype"}
    if not named <= _plain(layer).keys():
        return None
    config = {x: getattr(layer, x) for x in named}
    config |= {"name": layer.name, "dtype": layer.dtype_policy.name}
    try:
        with keras_internals.undisturbed(layer):
            made = _plain(type(layer)(**config))
    except TypeError:
        return None
    return config if made.items() <= _plain(layer).items() else None


def _plain(layer):
    """Dict of the attributes of a layer that are numbers, text or None."""
    return {
        name: x
        for name, x in vars(layer).items()
        if isinstance(x, int | float | str | None)
        and name != "built"
        and not name.startswith("_")
    }


def _objects_of_the_user(layer):
    """The functions, initializers, regularizers and constraints that are not
    Keras's, of a layer that describes itself like Keras's: list of pairs of
    the attribute and the object."""
    describe = type(layer).get_config
    if not _is_of_keras(describe) or describe is keras.Layer.get_config:
        return []
    return [
        (name, x)
        for name, x in vars(layer).items()
        if name.endswith(_TAKE_OBJECTS)
        and callable(x)
        and not isinstance(x, keras.Operation)
        and not _is_found_again(x)
    ]


def _wrapped(layer):
    """List of the layers inside of a recurrent layer or a wrapper of Keras's,
    which describes them."""
    if not _is_of_keras(type(layer).get_config):
        return []
    names = ("cell", "layer", "forward_layer", "backward_layer")
    parts = [getattr(layer, x, None) for x in names]
    parts += getattr(layer, "cells", ())
    found = [x for x in parts if isinstance(x, keras.Layer)]
    return found + [x for part in found for x in _wrapped(part)]


def _hand_on(old, new):
    """Gives the layers inside of a new recurrent layer or wrapper what the user
    wrote in the old ones, which its configuration does not hold."""
    for before, after in zip(_wrapped(old), _wrapped(new), strict=True):
        for name, x in _objects_of_the_user(before):
            vars(after)[name] = x
            stem, _, kind = name.rpartition("_")
            variable = getattr(after, stem, None)
            if isinstance(variable, keras.Variable):  # It is built.
                setattr(variable, kind, x)


def _is_found_again(x):
    """Whether Keras finds a function or the class of an object by its name."""
    if not inspect.isfunction(x):
        return _is_of_keras(type(x))
    return getattr(keras.activations, x.__name__, None) is x


def _is_of_keras(x):
    return x.__module__.startswith("keras.")


def _from_config(kind, config):
    """A layer made from its configuration, without the entries that `__init__`
    does not accept, which `get_config` of some packages contains."""
    try:
        return kind.from_config(config)
    except TypeError:
        accepted = _accepted(kind)
        if set(config) <= accepted:
            raise
        return kind.from_config(
            {x: y for x, y in config.items() if x in accepted}
        )


def _accepted(kind):
    """Names of the arguments of a class of layers."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    names = {x.name for x in parameters}
    if any(x.kind is x.VAR_KEYWORD for x in parameters):
        names |= set(inspect.signature(keras.Layer.__init__).parameters)
        names |= {"autocast", "name", "dtype", "trainable"}
    return names


def _clone_operation(op, changes):
    """A copy of a `keras.ops` operation. It has no state, and its arguments are
    its attributes. Some of these, such as NumPy integers, are in no config."""
    if changes or type(op).__name__ in ("Einsum", "Reshape"):
        # Unrolling changes the letters of an equation and the target of a
        # reshape, of which the configuration would not know.
        names = inspect.signature(type(op)).parameters
        old = {x: getattr(op, x) for x in names if hasattr(op, x)}
        return type(op)(**{**old, **changes})
    new = object.__new__(type(op))
    new.__dict__.update(op.__dict__, _inbound_nodes=[], _outbound_nodes=[])
    return new


def copy_state(source, target, strict=True):
    """Copies all variables (weights and seeds) of one layer into another.

    Args:
        source, target: Operations; only layers have a state.
        strict: Whether both must have equally many variables.
    """
    if not isinstance(source, keras.layers.Layer):
        return
    with named_in_errors(target):
        pairs = zip(source.variables, target.variables, strict=strict)
        for old, new in pairs:
            # JAX shares an assigned array, so that a compiled call of one
            # model would delete the variables of the other: assign a copy.
            new.assign(np.array(keras.ops.convert_to_numpy(old)))
        if hasattr(target, "finalize_state"):
            target.finalize_state()  # keras.layers.Normalization


@contextlib.contextmanager
def without_random_values(op):
    """A context in which a layer creates its weights as zeros, where they would
    be random: whoever builds a copy assigns them next.

    Args:
        op: A layer or a `keras.ops` operation.
    """
    is_new = isinstance(op, keras.layers.Layer) and not op.built
    found = {
        name: x
        for name, x in vars(op).items()
        if is_new
        and isinstance(x, keras.initializers.Initializer)
        and "seed" in x.get_config()
    }
    for name in found:
        setattr(op, name, keras.initializers.Zeros())
    try:
        yield
    finally:
        for name, x in found.items():
            setattr(op, name, x)


@contextlib.contextmanager
def named_in_errors(op):
    """Makes errors in this context name the layer they are about.

    Args:
        op: A layer or a `keras.ops` operation.
    """
    try:
        yield
    except Exception as error:  # Keras and its backends raise any type.
        reason = str(error).strip().split("\n\n")[0]
        raise ValueError(
            f"The layer {op.name!r} cannot be rebuilt. Expected a layer that "
            "its `get_config` describes in full: it has every argument of "
            "`__init__`, and all weights are created when the layer is built. "
            f"Received: {type(op)}, with {type(error).__name__}: {reason}"
        ) from error
