"""Distillation from recorded answers of a teacher."""

import inspect

import keras
import numpy as np
from keras import ops

from keras_bar import keras_internals
from keras_bar.distillation.distiller import Distiller


@keras.saving.register_keras_serializable("keras_bar")
class RecordedDistiller(Distiller):
    """A `Distiller` that uses recorded answers of the teacher.

    Without augmentation, a teacher gives the same answers for the same images
    in every epoch. Recorded answers save its share of each step, which is the
    larger one if the student is small:

        labels = {"labels": y, "teacher": teacher.predict(x)}
        distiller.fit(x, labels, epochs=40, callbacks=[budget])

    `"teacher"` holds the teacher's outputs for these images, in the same order:
    join a `tf.data.Dataset` with the answers before you shuffle it. Metrics and
    the student's loss see only the labels. For targets in any other form, such
    as those of validation data, the teacher is called.

    `sample_weight` is one array for both, or a dict with the keys of the
    targets, to weigh labels and answers differently. `class_weight` works with
    any data if the model has a single output.

    The arguments are those of `Distiller`.

    Raises:
        ValueError: If a distillation loss reads intermediate features, which
            are not recorded.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> distiller = keras_bar.distillation.RecordedDistiller(
    ...     model,
    ...     keras_bar.gate(model),
    ...     keras_bar.distillation.LogitsDistillation(temperature=4.0),
    ... )
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> distiller.compile("adam", loss)
    >>> x, y = np.ones((32, 8, 8, 1)), np.arange(32) % 2
    >>> answers = model.predict(x, verbose=0)
    >>> history = distiller.fit(x, {"labels": y, "teacher": answers}, verbose=0)
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: keras.distillation.DistillationLoss | list,
        **kwargs,
    ):
        super().__init__(teacher, student, distillation_losses, **kwargs)
        self._class_weights = None
        if keras_internals.teacher_extractor(self) is not None:
            names = [
                loss.teacher_layer_name
                for loss in self.distillation_losses
                if getattr(loss, "teacher_layer_name", None)
            ]
            raise ValueError(
                "A distillation loss reads intermediate features of the "
                "teacher. Expected losses of outputs, which can be recorded, "
                "or a `Distiller`. "
                f"Received: losses of the layers {names}"
            )

    def fit(self, *args, **kwargs):
        bound = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        given = {**bound.arguments}
        del given["self"]
        # Keras would look up the classes in the whole targets.
        class_weight = given.pop("class_weight", None)
        if class_weight is None:
            return super().fit(*args, **kwargs)
        if given.get("sample_weight") is not None:
            raise ValueError(
                "Both `class_weight` and `sample_weight` weigh the examples. "
                "Expected one of them. Received: both"
            )
        self._class_weights = _as_table(class_weight)
        self.train_function = None  # The step is compiled with the weights.
        try:
            return super().fit(**given)
        finally:
            self._class_weights = None
            self.train_function = None

    def train_step(self, *args):
        *state, data = args  # JAX passes a state.
        if self._class_weights is not None:
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            if weight is not None:
                raise ValueError(
                    "Both `class_weight` and the data weigh the examples. "
                    "Expected one of them. Received: both"
                )
            weight = _weights_of(_part(y)[0], self._class_weights)
            data = x, y, weight
        return super().train_step(*state, data)

    def part(self, y, y_pred, sample_weight):
        y, answers = _part(y)
        weight, answer_weight = _part_weights(sample_weight)
        if answers is not None:
            # TensorFlow turns lists in the data into tuples.
            answers = keras.tree.pack_sequence_as(
                y_pred, keras.tree.flatten(answers)
            )
        return y, weight, answers, answer_weight

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        return super().compute_metrics(
            x, _part(y)[0], y_pred, _part_weights(sample_weight)[0]
        )


def _part(y):
    """Labels and the teacher's answers, or None if there are no answers."""
    if not isinstance(y, dict) or "teacher" not in y:
        return y, None
    if set(y) != {"labels", "teacher"}:
        raise ValueError(
            "The targets hold more than labels and a teacher's answers. "
            "Expected the keys 'labels' and 'teacher'. "
            f"Received: {sorted(y)}"
        )
    return y["labels"], y["teacher"]


def _part_weights(sample_weight):
    """The weights of the labels and of the teacher's answers."""
    if isinstance(sample_weight, dict) and "teacher" in sample_weight:
        return sample_weight["labels"], sample_weight["teacher"]
    return sample_weight, sample_weight


def _as_table(class_weight):
    """List of the weights of all classes, starting at class 0."""
    classes = np.array([*class_weight])
    if classes.dtype.kind not in "iu" or np.any(classes < 0):
        raise ValueError(
            "Invalid class weights. Expected a dict from class index to "
            f"weight. Received: class_weight={class_weight!r}"
        )
    table = np.ones(classes.max() + 2)  # The last is for later classes.
    table[classes] = [class_weight[x] for x in class_weight]
    return table.tolist()


def _weights_of(labels, table):
    """The weight of each sample's class, looked up as in Keras."""
    if keras.tree.is_nested(labels):
        raise ValueError(
            "`class_weight` weighs the classes of one output. Expected "
            "`sample_weight` for several. Received: labels of "
            f"{len(keras.tree.flatten(labels))} outputs"
        )
    labels = ops.convert_to_tensor(labels)
    if len(labels.shape) > 1:
        labels = (
            ops.squeeze(labels, axis=-1)
            if labels.shape[-1] == 1
            else ops.argmax(labels, axis=-1)
        )
    if keras.backend.is_float_dtype(labels.dtype):
        labels = ops.round(labels)
    labels = ops.clip(ops.cast(labels, "int32"), 0, len(table) - 1)
    return ops.take(ops.convert_to_tensor(table, dtype="float32"), labels)
