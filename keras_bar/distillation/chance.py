"""A check that a teacher is better than a constant answer."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_bar.distillation import probabilities

# Number of examples to check, and the batch size.
EXAMPLES = 128
BATCH = 32


class TeacherCheck(keras.metrics.Metric):
    """Compares a teacher's answers with a constant one, the class frequencies.

    The check is a metric, so that it sees the answers that a training computes
    anyway, on any backend and for data that must not be read twice. It judges
    an output if its labels are classes, or distributions over classes.

    Args:
        teacher: `keras.Model`.
        student: `keras.Model` with outputs of the same shapes. If neither has
            a graph of layers, nothing is judged.
        name: String, name of the metric.
    """

    def __init__(self, teacher, student, name="teacher_check"):
        super().__init__(name=name, dtype="float32")
        outputs = (
            getattr(teacher, "outputs", None)
            or getattr(student, "outputs", None)
            or []
        )
        kinds = probabilities.kinds_of(teacher)
        kinds = kinds or len(outputs) * [probabilities.UNKNOWN]
        self._names = list(getattr(teacher, "output_names", None) or [])
        self._sums = [
            self._add_sums(i, output.shape[-1] if output.shape else None, kind)
            for i, (output, kind) in enumerate(zip(outputs, kinds, strict=True))
        ]

    def _add_sums(self, i, classes, kind):
        """Dict of the variables of one output: the sums over the examples of
        class distributions, cross-entropies and invalid labels. None if the
        output has no classes."""
        if not classes or classes < 2 or kind == probabilities.SIGMOID:
            return None
        shapes = {"classes": (classes,), "loss": (), "invalid": ()}
        return {
            name: self.add_variable(shape, "zeros", name=f"{name}_{i}")
            for name, shape in shapes.items()
        }

    def update_state(self, labels, answers):
        """Adds examples.

        Args:
            labels: Structure of tensors, the targets of the student.
            answers: Structure of tensors, the teacher's outputs.
        """
        labels, answers = map(keras.tree.flatten, (labels, answers))
        if not len(labels) == len(answers) == len(self._sums):
            return
        for y, answer, sums in zip(labels, answers, self._sums, strict=True):
            targets = None if sums is None else _as_distributions(y, answer)
            if targets is None:
                continue
            targets, valid = targets
            loss = -ops.sum(ops.multiply(targets, _log_probabilities(answer)))
            sums["classes"].assign_add(ops.sum(targets, axis=0))
            sums["loss"].assign_add(loss)
            sums["invalid"].assign_add(
                ops.sum(1.0 - ops.cast(valid, "float32"))
            )

    def result(self):
        """Number of examples seen, scalar."""
        counts = [ops.sum(x["classes"]) for x in self._sums if x]
        return ops.max(ops.stack(counts)) if counts else ops.zeros(())

    def warn(self, stacklevel=2):
        """Warns about outputs that are no better than class frequencies."""
        for i, sums in enumerate(self._sums):
            if sums is None:
                continue
            classes, loss, invalid = (
                ops.convert_to_numpy(sums[x]).astype("float64")
                for x in ("classes", "loss", "invalid")
            )
            count = round(classes.sum())
            present = np.count_nonzero(classes > 0.5)
            if invalid or 2 * present <= min(len(classes), count):
                continue  # The labels are invalid, or have too few classes.
            # Add one example per class, because the examples may lack some.
            frequencies = (classes + 1) / (classes + 1).sum()
            constant = -np.sum(classes * np.log(frequencies)) / count
            if loss / count < constant:
                continue
            several = len(self._names) > 1
            where = f" (output {self._names[i]!r})" if several else ""
            warnings.warn(
                f"The teacher is at chance{where}: for {count} of the "
                "examples the cross-entropy of its answers is "
                f"{loss / count:.3g}; a constant answer, the frequencies of "
                f"the classes, has {constant:.3g}. Expected a trained teacher "
                "with inputs like those of its training, and accurate in "
                "inference (`teacher.evaluate`).",
                stacklevel=stacklevel + 1,
            )


class TeacherWatch(keras.callbacks.Callback):
    """Reads a distiller's `TeacherCheck` after it has seen enough examples."""

    def __init__(self):
        super().__init__()
        self._next = 4

    def on_epoch_begin(self, epoch, logs=None):
        self._next = 4

    def on_train_batch_end(self, batch, logs=None):
        # Do not read after every batch: reading transfers from the device.
        if batch + 1 >= self._next:
            self._next *= 4
            self._read(EXAMPLES)

    def on_test_begin(self, logs=None):
        self._read(1)  # Keras resets all metrics before it evaluates.

    def on_epoch_end(self, epoch, logs=None):
        self._read(1)

    def _read(self, least):
        if self.model.watches_teacher:
            check = self.model.teacher_check
            if ops.convert_to_numpy(check.result()) >= least:
                self.model.watches_teacher = False
                check.warn(stacklevel=3)


def warn_if_at_chance(distiller, given):
    """Warns if a teacher's answers for arrays are no better than a constant.

    The check leaves training unchanged: neither random numbers nor the
    teacher's variables change. Data in another form is not read: that would use
    up a generator, and change the order of a shuffled data set.

    Args:
        distiller: `Distiller`.
        given: Dict of the arguments of `fit`.

    Returns:
        Whether examples were found.
    """
    for x, y in _candidates(given):
        chosen = _choose(x, y)
        if chosen is None:
            continue
        check = distiller.teacher_check
        # The first step of training will report any error.
        try:
            y, _, answers, _ = distiller.part(
                chosen[1], distiller.student.outputs, None
            )
            if answers is None:
                answers = _ask(distiller.teacher, chosen[0])
            check.reset_state()
            check.update_state(y, answers)
        except Exception:
            return True
        check.warn(stacklevel=3)
        check.reset_state()
        return True
    return False


def _candidates(given):
    yield given.get("x"), given.get("y")
    validation = given.get("validation_data")
    if isinstance(validation, list | tuple) and len(validation) >= 2:
        yield tuple(validation[:2])


def _choose(x, y):
    """A fixed choice of examples, or None if the data are not arrays."""
    leaves = keras.tree.flatten((x, y))
    if not all(isinstance(a, np.ndarray) or ops.is_tensor(a) for a in leaves):
        return None
    counts = {a.shape[0] if len(a.shape) else 0 for a in leaves}
    if len(counts) != 1 or not max(counts):
        return None
    (count,) = counts
    # The choice is random, because data may be sorted by class.
    rows = np.random.default_rng(0).permutation(count)[:EXAMPLES]

    def take(a):
        if not isinstance(a, np.ndarray):
            return ops.take(a, np.sort(rows), axis=0)
        a = a[np.sort(rows)]
        return a.astype("float32") if a.dtype.kind == "f" else a

    return keras.tree.map_structure(take, (x, y))


def _ask(teacher, x):
    """The answers of the teacher in inference."""
    count = len(keras.tree.flatten(x)[0])
    answers = []

    def slice_from(start):
        return keras.tree.map_structure(
            lambda a: ops.convert_to_tensor(a[start : start + BATCH]), x
        )

    # The scope discards updates of the state of layers.
    with keras.StatelessScope():
        for start in range(0, count, BATCH):
            output = teacher(slice_from(start), training=False)
            answers.append(
                keras.tree.map_structure(ops.convert_to_numpy, output)
            )
    return keras.tree.map_structure(lambda *a: np.concatenate(a), *answers)


def _as_distributions(y, answer):
    """Labels as distributions `(examples, classes)`, and whether each of them
    is valid, `(examples,)`; or None if they do not have the shape of labels."""
    y, answer = ops.convert_to_tensor(y), ops.convert_to_tensor(answer)
    classes, places = answer.shape[-1], tuple(answer.shape[1:-1])
    shape = tuple(y.shape[1:])
    if shape == (*places, classes):
        targets = ops.reshape(ops.cast(y, "float32"), (-1, classes))
        distance = ops.abs(ops.sum(targets, axis=-1) - 1.0)
        positive = ops.all(targets >= 0.0, axis=-1)
        valid = ops.logical_and(positive, distance < probabilities.TOLERANCE)
        return targets, valid
    if shape in (places, (*places, 1)):
        y = ops.reshape(ops.cast(y, "float32"), (-1,))
        valid = ops.logical_and(y == ops.round(y), y >= 0.0)
        valid = ops.logical_and(valid, y < classes)
        return ops.one_hot(ops.cast(y, "int32"), classes), valid
    return None


def _log_probabilities(answer):
    """Logarithms of the probabilities, `(examples, classes)`."""
    answer = ops.convert_to_tensor(answer)
    are = probabilities.are_probabilities(answer)
    answer = ops.reshape(ops.cast(answer, "float32"), (-1, answer.shape[-1]))
    logarithms = ops.log(ops.maximum(answer, probabilities.SMALLEST))
    return ops.log_softmax(ops.where(are, logarithms, answer), axis=-1)
