"""Conversion of probabilities for distillation losses that expect logits."""

import keras
from keras import ops

from keras_bar.analysis import trace
from keras_bar.distillation.losses import is_divergence

LOGITS, SOFTMAX, SIGMOID, UNKNOWN = "logits", "softmax", "sigmoid", "unknown"

# Lower bound of probabilities before the logarithm. TensorFlow flushes smaller
# numbers, which are subnormal, to 0.
SMALLEST = 1e-37
# Tolerance of sums of probabilities, in float32 and in half precision.
TOLERANCE = 1e-3
HALF_TOLERANCE = 2e-2

# Layers and operations that do not change the kind of an output.
_PASSING = {"Activation", "BudgetState", "Cast", "Dropout", "Identity"}


def kinds_of(model):
    """Determines the kinds of the outputs of a model.

    Args:
        model: `keras.Model`.

    Returns:
        List of strings, one per output: `"logits"`, `"softmax"`, `"sigmoid"`,
        or `"unknown"` if the last operation does not determine the kind; or
        None for a model without a graph of layers.
    """
    if not getattr(model, "inputs", None):
        return None
    try:
        graph = trace.trace(model)
    except ValueError:
        return None
    return [_kind_of(value) for value in graph.outputs]


def _kind_of(value):
    while value.producer is not None:
        op = value.producer.op
        kind = _activation_kind(op)
        if kind is not None:
            return kind
        if type(op).__name__ not in _PASSING:
            # Without an activation, layers such as `Dense` return logits.
            is_keras = type(op).__module__.startswith("keras.")
            return (
                LOGITS if is_keras and getattr(op, "weights", None) else UNKNOWN
            )
        value = value.producer.inputs[0]
    return UNKNOWN


def _activation_kind(op):
    """The kind of the output of an operation, or None if it is linear."""
    activations = keras.activations
    name = type(op).__name__
    function = {
        "Softmax": activations.softmax,
        "LogSoftmax": activations.log_softmax,
        "Sigmoid": activations.sigmoid,
    }.get(name, getattr(op, "activation", None))
    if function is None or function is activations.linear:
        return None
    if function is activations.softmax and getattr(op, "axis", -1) == -1:
        return SOFTMAX
    kinds = {activations.sigmoid: SIGMOID, activations.log_softmax: LOGITS}
    return kinds.get(function, UNKNOWN)


def check_comparable(distillation, model, kinds, who):
    """Raises a ValueError if a softmax of a model's outputs is meaningless.

    Args:
        distillation: `keras.distillation.DistillationLoss`.
        model: `keras.Model` of the outputs.
        kinds: The result of `kinds_of` for the model.
        who: String, "teacher" or "student".
    """
    if not isinstance(distillation, keras.distillation.LogitsDistillation):
        return
    outputs = getattr(model, "outputs", None) or []
    losses = _losses_of(distillation, len(outputs))
    if len(losses) != len(outputs):
        return  # Keras reports the different structures.
    for i, (loss, output) in enumerate(zip(losses, outputs, strict=True)):
        kind = kinds[i] if kinds else UNKNOWN
        single = output.shape[-1] == 1
        if is_divergence(loss) and (single or kind == SIGMOID):
            what = "a single number" if single else "a sigmoid of each class"
            raise ValueError(
                "`LogitsDistillation` compares the softmax over mutually "
                "exclusive classes. Expected two or more logits, or the "
                "probabilities of a softmax; for outputs of a "
                'sigmoid use `FeatureDistillation(loss="binary_crossentropy")`'
                f". Received: a {who} whose output {output.name!r} is {what}"
            )


def as_logits(distillation, outputs, kinds):
    """Converts outputs of a model to logits if a loss takes their softmax.

    The logarithms of probabilities are logits, whose softmax gives the same
    probabilities at any temperature.

    Args:
        distillation: `keras.distillation.DistillationLoss`.
        outputs: Tensor, or structure of tensors.
        kinds: The result of `kinds_of` for the model.

    Returns:
        Tensor, or structure of tensors, like `outputs`.
    """
    if not isinstance(distillation, keras.distillation.LogitsDistillation):
        return outputs
    flat = keras.tree.flatten(outputs)
    losses = _losses_of(distillation, len(flat))
    if len(losses) != len(flat):
        return outputs
    kinds = kinds or len(flat) * [UNKNOWN]
    converted = [
        _logits_of(x, kind) if is_divergence(loss) else x
        for x, kind, loss in zip(flat, kinds, losses, strict=True)
    ]
    return keras.tree.pack_sequence_as(outputs, converted)


def are_probabilities(outputs):
    """Whether outputs look like probabilities of classes, boolean tensor: none
    is negative, and they sum to 1 everywhere."""
    half = keras.backend.standardize_dtype(outputs.dtype) != "float32"
    outputs = ops.cast(outputs, "float32")
    distance = ops.abs(ops.sum(outputs, axis=-1) - 1.0)
    return ops.logical_and(
        ops.all(outputs >= 0.0),
        ops.all(distance < (HALF_TOLERANCE if half else TOLERANCE)),
    )


def _losses_of(distillation, count):
    loss = distillation.loss
    if keras.tree.is_nested(loss):
        return keras.tree.flatten(loss)
    return count * [loss]


def _logits_of(outputs, kind):
    if kind == LOGITS:
        return outputs
    logarithms = ops.log(ops.maximum(ops.cast(outputs, "float32"), SMALLEST))
    if kind == SOFTMAX:
        return logarithms
    # Only the values reveal the kind.
    return ops.where(
        are_probabilities(outputs), logarithms, ops.cast(outputs, "float32")
    )
