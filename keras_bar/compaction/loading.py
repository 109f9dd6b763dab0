"""Checks that a compact model can be loaded from a file."""

import warnings

import keras

from keras_bar import keras_internals


def warn_unless_loadable(model, stacklevel):
    """Warns of layers that Keras can save but not load.

    Each layer is serialized and restored separately. A class has to be
    registered: Keras does not find it merely because it is imported.

    Args:
        model: Functional `keras.Model`.
        stacklevel: As in `warnings.warn`, counted from the caller.
    """
    failing: dict = {}
    for op in model.operations:
        if error := _loading_error(op):
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


def _loading_error(op):
    """Why an operation cannot be restored, in a sentence, or None."""
    try:
        config = keras.saving.serialize_keras_object(op)
        config.pop("build_config", None)  # It would create weights.
        restored = keras.saving.deserialize_keras_object(
            config, safe_mode=False
        )
        if not type(op).__module__.startswith("keras."):
            _call_like(op, restored)
    except Exception as error:  # A custom class may raise anything.
        text = " ".join(str(error).split()) or type(error).__name__
        return text.split(". ")[0]
    return None


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
