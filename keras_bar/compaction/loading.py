"""Checks that a compact model can be loaded from a file."""

import warnings

import keras

from keras_bar import keras_internals


def warn_unless_loadable(model, stacklevel):
    """Warns of layers that Keras can save but not load.

    Each layer is serialized and restored separately, but those of Keras that
    differ in numbers alone only once. A class has to be registered: Keras does
    not find it merely because it is imported.

    Args:
        model: Functional `keras.Model`.
        stacklevel: As in `warnings.warn`, counted from the caller.
    """
    failing: dict = {}
    restored: set = set()
    for op in model.operations:
        if error := _loading_error(op, restored):
            failing.setdefault(type(op), (op.name, error))
    if failing:
        classes = "; ".join(
            f"{cls.__module__}.{cls.__qualname__} ({name!r}: {error})"
            for cls, (name, error) in failing.items()
        )
        warnings.warn(
            "The compact model cannot be saved and loaded again. Expected "
            "layers that Keras can restore: write "
            "`@keras.saving.register_keras_serializable()` above every class "
            "and function of your own before you save, and return all "
            f"arguments in `get_config`. Received: {classes}",
            stacklevel=stacklevel + 1,
        )


def _loading_error(op, known):
    """Why an operation cannot be restored, in a sentence, or None.

    Args:
        op: A layer or a `keras.ops` operation.
        known: Set of what was restored already, which may grow.
    """
    try:
        config = keras.saving.serialize_keras_object(op)
        config.pop("build_config", None)  # It would create weights.
        is_custom = not type(op).__module__.startswith("keras.")
        kind = _without_numbers(config)
        if kind in known and not is_custom:
            return None
        restored = keras.saving.deserialize_keras_object(
            config, safe_mode=False
        )
        if is_custom:
            _call_like(op, restored)
        known.add(kind)
    except Exception as error:  # A custom class may raise anything.
        text = " ".join(str(error).split()) or type(error).__name__
        return text.split(". ")[0]
    return None


def _without_numbers(config):
    """A serialized object without the numbers in it and the name of the layer,
    as something that can be compared and hashed."""
    if isinstance(config, dict):
        layer_name = {"name"} if "trainable" in config else set()
        return tuple(
            (x, _without_numbers(config[x]))
            for x in sorted(config.keys() - layer_name)
        )
    if isinstance(config, (list, tuple)):
        return frozenset(map(_without_numbers, config))
    return config if isinstance(config, str) else type(config).__name__


def _call_like(op, restored):
    """Calls a restored operation like the old one: Keras may restore a layer
    with different arguments without an error."""
    args, kwargs = keras.tree.map_structure(
        lambda x: (
            keras.Input(batch_shape=x.shape, dtype=x.dtype)
            if isinstance(x, keras.KerasTensor)
            else x
        ),
        keras_internals.first_arguments(op),
    )
    restored(*args, **kwargs)
