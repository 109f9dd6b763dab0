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
            the Kullback-Leibler divergence. For several outputs also a list or
            a dict of losses like them, None where there is none.
    """

    def __init__(self, temperature=4.0, loss=None):
        super().__init__(temperature, loss or "kl_divergence")
        self.loss: Any = keras.tree.map_structure(_mend_divergence, self.loss)

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        """Scalar loss of logits `(..., classes)`, or of lists or dicts of
        them; one loss serves all outputs."""
        nested = keras.tree.is_nested
        if nested(student_outputs) and not nested(self.loss):
            each = keras.tree.map_structure(
                lambda _: self.loss, student_outputs
            )
            parts = LogitsDistillation(self.temperature, each)
            return parts.compute_loss(teacher_outputs, student_outputs)
        return super().compute_loss(teacher_outputs, student_outputs, **kwargs)

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


def _mean_of(loss):
    """A loss that returns a scalar: outputs may differ in shape."""
    return lambda y, y_pred: keras.ops.mean(loss(y, y_pred))


def _match(losses, values, name):
    """Targets or outputs in a container like that of the losses."""
    named = isinstance(losses, dict)
    expected = set(losses) if named else set(range(len(losses)))
    if not isinstance(values, dict | list | tuple):
        values = [values]
    if isinstance(values, tuple):
        values = list(values)
    keys = values if isinstance(values, dict) else range(len(values))
    found = set(keys)
    if found != expected or isinstance(values, dict) != named:
        raise ValueError(
            f"The losses do not match the {name} of the student. Expected "
            f"{name} {sorted(expected)}, as there are losses. "
            f"Received: {sorted(found)}"
        )
    return values


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

    See `keras.distillation.Distiller` for the arguments. Networks with several
    outputs take a list or a dict of losses, like the outputs. As in Keras's,
    `sample_weight` has no effect.
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
        # In a tuple, or Keras would track what it holds.
        self._loss_for_saving = (loss,)
        losses = self._student_loss
        if isinstance(losses, dict | list | tuple):
            # Not as an attribute: Keras would track it, and then not find the
            # structure of the outputs in it.
            self.__dict__["_student_loss"] = (
                {key: _mean_of(x) for key, x in losses.items()}
                if isinstance(losses, dict)
                else [_mean_of(x) for x in losses]
            )

    def get_compile_config(self):
        # Keras's distiller hides its loss from the model that it is.
        return {
            **super().get_compile_config(),
            "loss": keras.saving.serialize_keras_object(
                self._loss_for_saving[0]
            ),
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
        losses = self._student_loss
        if isinstance(losses, dict | list):
            y_pred = _match(losses, y_pred, "outputs")
            y = y if y is None else _match(losses, y, "targets")
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        for penalty in penalties:
            loss = keras.ops.add(loss, self._aggregate_additional_loss(penalty))
        return loss


@keras.saving.register_keras_serializable("keras_bar")
class RecordedDistiller(Distiller):
    """A `Distiller` whose teacher has answered beforehand.

    A teacher that is shown the same pictures in every epoch, without
    augmentation, gives the same answers in every epoch. Recorded once, they
    save its part of every step, which is the larger one where the student is
    small:

        labels = {"labels": y, "teacher": teacher.predict(x)}
        distiller.fit(x, labels, epochs=40, callbacks=[budget])

    `"teacher"` holds what the teacher returns for these pictures, in their
    order: a `tf.data.Dataset` is to be joined with the answers before it is
    shuffled. Metrics and the student's loss see the labels alone. Where targets
    are anything else, as those to validate on may be, the teacher is asked.

    The arguments are those of `Distiller`.

    Raises:
        ValueError: If a distillation loss reads intermediate features, of
            which there is no record.
    """

    def __init__(self, teacher, student, distillation_losses, **kwargs):
        super().__init__(teacher, student, distillation_losses, **kwargs)
        if self._teacher_feature_extractor is not None:
            names = [
                loss.teacher_layer_name
                for loss in self.distillation_losses
                if getattr(loss, "teacher_layer_name", None)
            ]
            raise ValueError(
                "A distillation loss reads intermediate features of the "
                "teacher. Expected losses of its outputs, which can be "
                "recorded, or a `Distiller`. "
                f"Received: losses of the layers {names}"
            )

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        y, recorded = _part(y)
        if y_pred is None:
            y_pred = self(x, training=training)
        if recorded is not None:
            # TensorFlow makes tuples of lists that are fed.
            recorded = keras.tree.pack_sequence_as(
                y_pred, keras.tree.flatten(recorded)
            )
        self.__dict__["_recorded"] = recorded
        try:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        finally:
            self.__dict__["_recorded"] = None

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(x, _part(y)[0], y_pred, sample_weight)

    def _extract_all_teacher_features(self, x):
        recorded = self.__dict__.get("_recorded")
        if recorded is None:
            return super()._extract_all_teacher_features(x)
        return {"final_output": recorded}


def _part(y):
    """Targets, and the teacher's answers, or None where there are none."""
    if not isinstance(y, dict) or "teacher" not in y:
        return y, None
    if set(y) != {"labels", "teacher"}:
        raise ValueError(
            "These targets hold a teacher's answers, and something else. "
            "Expected the keys 'labels' and 'teacher'. "
            f"Received: {sorted(y)}"
        )
    return y["labels"], y["teacher"]
