"""Knowledge distillation, with what Keras's own leaves out."""

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
        super().__init__(temperature, loss or keras.losses.KLDivergence())

    @classmethod
    def mend(cls, distillation):
        """`distillation`, with the divergence Keras means by its default."""
        if (
            type(distillation) is keras.distillation.LogitsDistillation
            and distillation.loss is keras.losses.kl_divergence
        ):
            return cls(distillation.temperature)
        return distillation


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

    def call(self, inputs, training=None, **kwargs):
        extractor = self._student_feature_extractor
        if not training or extractor is None:
            return super().call(inputs, training=training, **kwargs)
        self._student_features = extractor(inputs, training=True)
        return self._student_features["final_output"]

    def _extract_all_student_features(self, x, y_pred):
        if self._student_feature_extractor is None:
            return {"final_output": y_pred}
        features = getattr(self, "_student_features", {})
        if features.get("final_output") is y_pred:
            return features
        return self._student_feature_extractor(x, training=False)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        for penalty in self.losses:
            loss = loss + self._aggregate_additional_loss(penalty)
        return loss
