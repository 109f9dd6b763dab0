"""A distiller whose loss includes all losses of the student."""

import inspect
import warnings

import keras
from keras import ops

from keras_bar import keras_internals
from keras_bar.budget import selection
from keras_bar.distillation import chance
from keras_bar.distillation import distiller_checks
from keras_bar.distillation import losses
from keras_bar.distillation import probabilities


@keras.saving.register_keras_serializable("keras_bar")
class Distiller(keras.distillation.Distiller):
    """`keras.distillation.Distiller` that trains like `keras.Model`.

    Keras's distiller returns the supervised and the distillation loss without
    `self.losses`: the penalty of a budget and the weight regularizers of a
    student would silently have no effect. If a distillation loss reads
    intermediate features, it runs the student twice, with different noise in
    the gates and another step of the budget; this class runs it once. Keras's
    distiller also ignores sample weights.

    For the paper's loss `(1 - alpha) CE + alpha T^2 KL` with `alpha = 0.9` and
    `T = 4` pass `LogitsDistillation(temperature=4.0)` and
    `student_loss_weight=0.1`. If a network ends in a softmax, the loss compares
    the logarithms of its probabilities, which are logits.

    `compile` takes the arguments of `keras.Model.compile`; losses, loss weights
    and metrics apply to the outputs of the student.

    `sample_weight` weighs both the supervised loss, as in `keras.Model.fit`,
    and the distillation losses: an example of weight 2 counts like two
    examples, for the labels and for the teacher's answers. `class_weight` is
    the sample weight of all examples of a class. To weigh classes only for the
    labels, do so in the loss that you pass to `compile`. A custom distillation
    loss is weighted if its `compute_loss` has an argument `sample_weight`;
    otherwise a warning says that its samples count equally. Losses of
    intermediate features, which belong to no output, use the mean of an
    example's weights over outputs and places.

    The first `fit` compares some of the teacher's answers with the classes of
    their examples, and warns if a constant answer would be as good: before
    training if the training or the validation data are arrays, otherwise after
    the first batches.

    Args:
        teacher: `keras.Model` to learn from. It is frozen.
        student: `keras.Model` to train, separate from the teacher.
        distillation_losses: `LogitsDistillation`, `FeatureDistillation` or
            another `keras.distillation.DistillationLoss`, or a list of them.
        **kwargs: `distillation_loss_weights`, `student_loss_weight` and
            `name`; see `keras.distillation.Distiller`.

    Raises:
        ValueError: If the teacher is the student or shares trainable weights
            with it, or if a softmax of the outputs is meaningless because they
            are single numbers or end in a sigmoid.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> distiller = keras_bar.distillation.Distiller(
    ...     model,
    ...     keras_bar.gate(model),
    ...     keras_bar.distillation.LogitsDistillation(temperature=4.0),
    ...     student_loss_weight=0.1,
    ... )
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> distiller.compile("adam", loss)
    >>> x, y = np.ones((32, 8, 8, 1)), np.arange(32) % 2
    >>> history = distiller.fit(x, y, class_weight={0: 1.0, 1: 5.0}, verbose=0)
    """

    def __init__(
        self,
        teacher: keras.Model,
        student: keras.Model,
        distillation_losses: keras.distillation.DistillationLoss | list,
        **kwargs,
    ):
        distiller_checks.check_networks(teacher, student)
        distillation_losses = keras.tree.map_structure(
            losses.mend, distillation_losses
        )
        distiller_checks.check_losses(distillation_losses)
        if not isinstance(distillation_losses, list | tuple):
            # Keras's distiller ignores the weight of a single loss.
            distillation_losses = [distillation_losses]
            weight = kwargs.get("distillation_loss_weights")
            if selection.is_number(weight):
                kwargs["distillation_loss_weights"] = [weight]
        super().__init__(teacher, student, distillation_losses, **kwargs)
        # Keras would track lists that are set as attributes.
        self.__dict__["_teacher_kinds"] = probabilities.kinds_of(teacher)
        self.__dict__["_student_kinds"] = probabilities.kinds_of(student)
        for loss in self.distillation_losses:
            probabilities.check_comparable(
                loss, teacher, self._teacher_kinds, "teacher"
            )
            probabilities.check_comparable(
                loss, student, self._student_kinds, "student"
            )
        self.teacher_check = chance.TeacherCheck(teacher, student)
        # Whether the training compares the teacher's answers, and whether that
        # comparison or the check of arrays has already been done.
        self.watches_teacher = self._chance_checked = False
        # A built distiller can be restored by `BackupAndRestore`, together with
        # its optimizer. It has no variables of its own to build.
        self.built = teacher.built and student.built

    @property
    def output_names(self):
        """The output names of the student, for losses and metrics."""
        return getattr(self.student, "output_names", None)

    def compile(self, optimizer="adam", loss=None, metrics=None, **kwargs):
        distiller_checks.check_compile_loss(loss, self.student)
        # Keras's distiller hides the loss from its base class, which disables
        # everything that `keras.Model` does with it.
        keras.Model.compile(self, optimizer, loss, metrics=metrics, **kwargs)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(self, *args, **kwargs):
        if not self._chance_checked and self.student_loss_weight < 1:
            self._chance_checked = True
            bound = inspect.signature(keras.Model.fit).bind(
                self, *args, **kwargs
            )
            if not chance.warn_if_at_chance(self, bound.arguments):
                return self._fit_watching(bound)
        return super().fit(*args, **kwargs)

    def _fit_watching(self, bound):
        """Fits, and compares the teacher's answers during training."""
        callbacks = bound.arguments.get("callbacks") or []
        watch = chance.TeacherWatch()
        if isinstance(callbacks, keras.callbacks.CallbackList):
            watch.set_model(self)
            callbacks = callbacks.callbacks  # The list that `fit` uses.
        else:
            callbacks = [*keras.tree.flatten(callbacks)]
            bound.arguments["callbacks"] = callbacks
        callbacks.append(watch)
        self.watches_teacher = True
        self.train_function = None  # The step is compiled with the check.
        try:
            return super().fit(*bound.args[1:], **bound.kwargs)
        finally:
            self.watches_teacher = False
            callbacks.remove(watch)

    def get_metrics_result(self):
        """The metrics without the check, which is internal."""
        result = super().get_metrics_result()
        result.pop(self.teacher_check.name, None)
        return result

    def call(self, inputs, training=None, **kwargs):
        extractor = keras_internals.student_extractor(self)
        if not training or extractor is None:
            return super().call(inputs, training=training, **kwargs)
        self._features_of_call = extractor(inputs, training=True)
        return self._features_of_call["final_output"]

    def _student_features(self, x, y_pred):
        extractor = keras_internals.student_extractor(self)
        if extractor is None:
            return {"final_output": y_pred}
        features = self.__dict__.pop("_features_of_call", {})
        if features.get("final_output") is y_pred:
            return features
        return extractor(x, training=False)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if y_pred is None:
            y_pred = self(x, training=training)
        # Only losses of the student: the teacher has not been called yet.
        penalties = self.losses
        y, sample_weight, answers, answer_weight = self.part(
            y, y_pred, sample_weight
        )
        supervised = distilled = 0.0
        if self.student_loss_weight > 0.0 and y is not None:
            supervised = keras_internals.compiled_loss(
                self, y, y_pred, sample_weight
            )
        if self.student_loss_weight < 1.0:
            teacher = (
                keras_internals.teacher_features(self, x)
                if answers is None
                else {"final_output": answers}
            )
            if self.watches_teacher and training and y is not None:
                self.teacher_check.update_state(y, teacher["final_output"])
            student = self._student_features(x, y_pred)
            distilled = self._distillation_loss(teacher, student, answer_weight)
        share = self.student_loss_weight
        loss = ops.add(
            ops.multiply(share, supervised),
            ops.multiply(1.0 - share, distilled),
        )
        # Like `loss` in Keras, weighted by the batch size, which may vary.
        size = ops.shape(keras.tree.flatten(y_pred)[0])[0]
        self.student_loss_tracker.update_state(supervised, size)
        self.distillation_loss_tracker.update_state(distilled, size)
        self.total_loss_tracker.update_state(loss, size)
        for penalty in penalties:
            penalty = keras_internals.added_loss(self, penalty)
            loss = ops.add(loss, penalty)
        return loss

    def part(self, y, y_pred, sample_weight):
        """Splits the targets between the losses.

        Args:
            y: Targets of `fit`.
            y_pred: Outputs of the student.
            sample_weight: Weights of `fit`, or None.

        Returns:
            Labels and their weights; the teacher's answers, or None to call the
            teacher; and the weights of the answers.
        """
        return y, sample_weight, None, sample_weight

    def _distillation_loss(self, teacher, student, sample_weight):
        """Scalar loss of two dicts from layer names to features; the outputs
        are at `"final_output"`."""
        total = 0.0
        for loss, factor in zip(
            self.distillation_losses,
            self.distillation_loss_weights,
            strict=True,
        ):
            names = [
                getattr(loss, name, None)
                for name in ("teacher_layer_name", "student_layer_name")
            ]
            target, output = (
                features[name or "final_output"]
                for features, name in zip(
                    (teacher, student), names, strict=True
                )
            )
            if not names[0]:
                target = probabilities.as_logits(
                    loss, target, self._teacher_kinds
                )
            if not names[1]:
                output = probabilities.as_logits(
                    loss, output, self._student_kinds
                )
            loss.validate_outputs(target, output)
            options = {}
            if sample_weight is not None and _takes_weights(loss):
                options["sample_weight"] = (
                    _per_sample(sample_weight)
                    if any(names)
                    else _like_outputs(sample_weight, output, self.output_names)
                )
            value = loss.compute_loss(target, output, **options)
            distiller_checks.check_scalar(value, loss)
            total = ops.add(total, ops.multiply(factor, value))
        return total


def _takes_weights(loss):
    if "sample_weight" in inspect.signature(loss.compute_loss).parameters:
        return True
    warnings.warn(
        f"`{type(loss).__name__}` cannot weigh samples: `sample_weight` and "
        "`class_weight` have no effect on this part of the loss. Expected a "
        "method `compute_loss(teacher_outputs, student_outputs, "
        "sample_weight=None)`.",
        stacklevel=2,
    )
    return False


def _per_sample(weights):
    """Weights per sample, averaged over outputs and places."""
    each = [
        losses.with_rank(x, 1)
        for x in keras.tree.flatten(weights)
        if x is not None
    ]
    return sum(each) / float(len(each)) if each else None


def _like_outputs(weights, outputs, names):
    """Weights in the structure of the outputs, if each output has its own."""
    tree = keras.tree
    if not tree.is_nested(weights) or not tree.is_nested(outputs):
        return tree.flatten(weights)[0]
    if isinstance(weights, dict) and not isinstance(outputs, dict):
        weights = [weights.get(name) for name in names]
    return tree.pack_sequence_as(outputs, tree.flatten(weights))
