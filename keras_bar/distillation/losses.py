"""Distillation losses that support sample weights."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_bar")
class LogitsDistillation(keras.distillation.LogitsDistillation):
    """`T^2 KL(softmax(teacher / T), softmax(student / T))` of two logits.

    With its default loss, the class of this name in Keras 3.15 compares the
    logits as if they were probabilities: it turns the string `"kl_divergence"`
    into a function, and takes the softmax only for an instance of
    `keras.losses.KLDivergence`. Students trained with it stay at chance. This
    class defaults to the instance.

    Args:
        temperature: Float, the temperature `T`; 4 in the paper.
        loss: `keras.losses.Loss` between the two softened outputs; by default
            the Kullback-Leibler divergence. For several outputs, a list or dict
            with the structure of the outputs is possible; None means no loss.

    Example:

    >>> loss = keras_bar.distillation.LogitsDistillation(temperature=4.0)
    >>> logits = keras.ops.convert_to_tensor([[2.0, -1.0, 0.0]])
    >>> abs(float(loss.compute_loss(logits, logits))) < 1e-6
    True
    """

    def __init__(self, temperature: float = 4.0, loss: Any = None):
        if isinstance(temperature, bool) or (
            isinstance(temperature, int | float)
            and not 0 < temperature < float("inf")
        ):
            raise ValueError(
                "Invalid temperature. Expected a finite number above 0. "
                f"Received: temperature={temperature!r}"
            )
        super().__init__(temperature, loss or "kl_divergence")
        self.loss: Any = keras.tree.map_structure(_mend_divergence, self.loss)

    def compute_loss(
        self, teacher_outputs, student_outputs, sample_weight=None, **kwargs
    ):
        """Computes the scalar loss of logits.

        Args:
            teacher_outputs: Tensor `(..., classes)`, or a list or dict of
                tensors; one loss serves all outputs.
            student_outputs: The same of the student.
            sample_weight: None, a tensor of weights as in Keras, or a structure
                of weights like that of the outputs.
            **kwargs: Ignored.

        Returns:
            Scalar tensor, the sum over the outputs.
        """

        def apply(loss, teacher, student, weight):
            teacher = ops.divide(teacher, self.temperature)
            student = ops.divide(student, self.temperature)
            if not is_divergence(loss):
                return weighted_mean(loss, teacher, student, weight)
            teacher, student = ops.softmax(teacher), ops.softmax(student)
            divergence = weighted_mean(loss, teacher, student, weight)
            return self.temperature**2 * divergence

        return _sum_over_outputs(
            apply, self.loss, teacher_outputs, student_outputs, sample_weight
        )

    @classmethod
    def mend(cls, distillation):
        """Returns `distillation` with the divergence that Keras intends."""
        if type(distillation) is keras.distillation.LogitsDistillation:
            return cls(distillation.temperature, distillation.loss)
        return distillation


@keras.saving.register_keras_serializable("keras_bar")
class FeatureDistillation(keras.distillation.FeatureDistillation):
    """`keras.distillation.FeatureDistillation` with sample weights.

    The arguments are the same. A `Distiller` replaces the class of Keras by
    this one.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model)
    >>> distiller = keras_bar.distillation.Distiller(
    ...     model,
    ...     student,
    ...     keras_bar.distillation.FeatureDistillation(
    ...         teacher_layer_name="conv", student_layer_name="conv"
    ...     ),
    ... )
    """

    def __init__(
        self,
        loss: Any = "mse",
        teacher_layer_name: str | None = None,
        student_layer_name: str | None = None,
    ):
        super().__init__(loss, teacher_layer_name, student_layer_name)

    def compute_loss(
        self, teacher_outputs, student_outputs, sample_weight=None, **kwargs
    ):
        """Computes the scalar loss of features, like `LogitsDistillation`."""
        return _sum_over_outputs(
            weighted_mean,
            self.loss,
            teacher_outputs,
            student_outputs,
            sample_weight,
        )

    @classmethod
    def mend(cls, distillation):
        """Returns `distillation` with support for sample weights."""
        if type(distillation) is keras.distillation.FeatureDistillation:
            return cls(
                distillation.loss,
                distillation.teacher_layer_name,
                distillation.student_layer_name,
            )
        return distillation


def mend(distillation):
    """Replaces a distillation loss of Keras by the class of this package."""
    return FeatureDistillation.mend(LogitsDistillation.mend(distillation))


def is_divergence(loss):
    """Whether a loss compares the softmax of its arguments."""
    return isinstance(loss, keras.losses.KLDivergence)


def weighted_mean(loss, target, output, sample_weight=None):
    """Averages a loss over all samples.

    Args:
        loss: `keras.losses.Loss`, or a function of targets and outputs that
            returns a loss per sample.
        target, output: Tensors.
        sample_weight: Tensor, or None for equal weights. Weights with fewer
            axes than the loss are broadcast over the remaining axes, such as
            the positions of an image; weights with more axes are averaged.

    Returns:
        Scalar tensor: as in Keras, the sum of the weighted losses divided by
        their number, whatever the weights.
    """
    if not isinstance(loss, keras.losses.Loss):
        loss = _FunctionLoss(loss)
    if sample_weight is not None:
        target, output = (
            ops.convert_to_tensor(x, dtype=loss.dtype) for x in (target, output)
        )
        rank = len(loss.call(target, output).shape)
        if not rank:
            raise ValueError(
                "A distillation loss cannot be weighted. Expected one value "
                "per sample, because samples have weights. "
                f"Received: a scalar from {loss.name}"
            )
        sample_weight = with_rank(sample_weight, rank)
    return ops.mean(loss(target, output, sample_weight=sample_weight))


def with_rank(weights, rank):
    """Weights with `rank` axes; the first is the axis of the samples."""
    weights = ops.convert_to_tensor(weights, dtype="float32")
    while len(weights.shape) > rank:
        weights = ops.mean(weights, axis=-1)
    while len(weights.shape) < rank:
        weights = ops.expand_dims(weights, axis=-1)
    return weights


class _FunctionLoss(keras.losses.Loss):
    """Wraps a function, so that `tf.distribute` scales it like other losses."""

    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self._function = function

    def call(self, y_true, y_pred):
        return self._function(y_true, y_pred)


def _sum_over_outputs(apply, losses, teacher, student, weights):
    """The sum of `apply(loss, teacher, student, weight)` over the outputs."""
    tree = keras.tree
    if tree.is_nested(student) and not tree.is_nested(losses):
        losses = tree.map_structure(lambda _: losses, student)
    if not tree.is_nested(weights):
        weights = tree.map_structure(lambda _: weights, losses)
    values = tree.map_structure(
        lambda loss, *rest: 0.0 if loss is None else apply(loss, *rest),
        losses,
        teacher,
        student,
        weights,
    )
    return ops.sum(ops.stack(tree.flatten(values)))


def _mend_divergence(loss):
    if loss is keras.losses.kl_divergence:
        return keras.losses.KLDivergence()
    return loss
