"""Knowledge distillation, with what Keras's own leaves out."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("keras_bar")
class LogitsDistillation(keras.distillation.LogitsDistillation):
    """`T^2 KL(softmax(teacher / T), softmax(student / T))` of two logits.

    Keras 3.15's class of this name, left to its default loss, compares the
    logits themselves as if they were probabilities (the string
    `"kl_divergence"` becomes a function there, and the softmax is taken only
    for an instance of `keras.losses.KLDivergence`): a student trained with it
    stays at chance. This one defaults to the instance.

    Args:
        temperature: Float, the temperature `T`; 4 in the paper.
        loss: `keras.losses.Loss` between the two softened outputs; by default
            the Kullback-Leibler divergence.
    """

    def __init__(self, temperature=4.0, loss=None):
        super().__init__(temperature, loss or "kl_divergence")
        self.loss: Any = keras.tree.map_structure(_mend_divergence, self.loss)

    @classmethod
    def mend(cls, distillation):
        """`distillation`, with the divergence Keras means by its default."""
        if type(distillation) is keras.distillation.LogitsDistillation:
            return cls(distillation.temperature, distillation.loss)
        return distillation


def _mend_divergence(loss):
    if loss is keras.losses.kl_divergence:
        return keras.losses.KLDivergence()
    return loss


@keras.saving.register_keras_serializable("keras_bar")
class Distiller(keras.distillation.Distiller):
    """`keras.distillation.Distiller`, with the student's own losses included.

    Keras's distiller returns the supervised and the distillation loss and
    leaves out `self.losses`: the budget's penalty and the weights'
    regularizers of a student would silently have no effect. It also runs the
    student a second time where a distillation loss reads intermediate
    features, with other noise in the gates and another step of the budget;
    here it runs once.

    For the paper's loss `(1 - alpha) CE + alpha T^2 KL` with `alpha = 0.9` and
    `T = 4` pass `LogitsDistillation(temperature=4.0)` and
    `student_loss_weight=0.1`; both networks then return logits.

    See `keras.distillation.Distiller` for the arguments.
    """

    def __init__(self, teacher, student, distillation_losses, **kwargs):
        distillation_losses = keras.tree.map_structure(
            LogitsDistillation.mend, distillation_losses
        )
        super().__init__(teacher, student, distillation_losses, **kwargs)
        # It has no variables of its own. Built, it can be restored by
        # `BackupAndRestore`, and its optimizer with it.
        self.built = teacher.built and student.built

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        super().compile(optimizer, loss, metrics, **kwargs)
        self._loss_for_saving = loss

    def get_compile_config(self):
        # Keras's distiller hides its loss from the model that it is.
        return {
            **super().get_compile_config(),
            "loss": keras.saving.serialize_keras_object(self._loss_for_saving),
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def call(self, inputs, training=None, **kwargs):
        extractor = self._student_feature_extractor
        if not training or extractor is None:
            return super().call(inputs, training=training, **kwargs)
        self._student_features = extractor(inputs, training=True)
        return self._student_features["final_output"]

    def _extract_all_student_features(self, x, y_pred):
        if self._student_feature_extractor is None:
            return {"final_output": y_pred}
        features = self.__dict__.pop("_student_features", {})
        if features.get("final_output") is y_pred:
            return features
        return self._student_feature_extractor(x, training=False)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if y_pred is None:
            y_pred = self(x, training=training)
        # The student's losses alone: the teacher has not been called yet.
        penalties = self.losses
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        for penalty in penalties:
            loss = keras.ops.add(loss, self._aggregate_additional_loss(penalty))
        return loss
