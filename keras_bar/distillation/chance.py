"""A check that a teacher is better than a constant answer."""

import warnings

import keras
import numpy as np
from keras import ops

from keras_bar.distillation import probabilities

# Number of examples that are checked, and the batch size.
EXAMPLES = 128
BATCH = 32


def warn_if_at_chance(distiller, given):
    """Warns if a teacher's answers are no better than a constant one.

    The check leaves training unchanged, so it reads only arrays: it would use
    up a generator, and change the order of a shuffled data set. Neither random
    numbers nor the teacher's variables change.

    Args:
        distiller: `Distiller`.
        given: Dict of the arguments of `fit`.
    """
    for x, y in _candidates(given):
        chosen = _choose(x, y)
        if chosen is None:
            continue
        # The first step of training will report any error.
        try:
            y, _, answers, _ = distiller.part(
                chosen[1], distiller.student.outputs, None
            )
            if answers is None:
                answers = _ask(distiller.teacher, chosen[0])
        except Exception:
            return
        _compare(distiller.teacher, y, answers)
        return


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


def _compare(teacher, labels, answers):
    """Warns about outputs that are no better than the class frequencies."""
    names = getattr(teacher, "output_names", None)
    kinds = probabilities.kinds_of(teacher)
    labels, answers = map(keras.tree.flatten, (labels, answers))
    if len(labels) != len(answers):
        return
    for i, (y, answer) in enumerate(zip(labels, answers, strict=True)):
        answer = np.asarray(ops.convert_to_numpy(answer), "float64")
        kind = kinds[i] if kinds else probabilities.UNKNOWN
        targets = _as_distributions(np.asarray(ops.convert_to_numpy(y)), answer)
        if targets is None or kind == probabilities.SIGMOID:
            continue
        loss = -np.mean(np.sum(targets * _logarithms(answer), axis=-1))
        constant = -np.mean(np.sum(targets * _frequencies(targets), axis=-1))
        if not loss < constant:
            where = (
                f" (output {names[i]!r})" if names and len(names) > 1 else ""
            )
            warnings.warn(
                f"The teacher is at chance{where}: for {len(targets)} of the "
                f"examples the cross-entropy of its answers is {loss:.3g}; a "
                "constant answer, the frequencies of the classes, has "
                f"{constant:.3g}. Expected a trained teacher with inputs "
                "like those of its training, and accurate in inference "
                "(`teacher.evaluate`).",
                stacklevel=4,
            )


def _as_distributions(y, answer):
    """Labels as distributions `(examples, classes)`, or None if they are not
    classes, or have too few classes to judge the answers by."""
    classes = answer.shape[-1]
    if classes < 2:
        return None
    if y.shape == answer.shape:
        targets = y.reshape(-1, classes).astype("float64")
        if np.any(targets < 0) or not np.allclose(
            targets.sum(-1), 1, atol=1e-3
        ):
            return None
    elif y.shape in (answer.shape[:-1], (*answer.shape[:-1], 1)):
        y = y.reshape(-1)
        if np.any(y != np.round(y)) or y.min() < 0 or y.max() >= classes:
            return None
        targets = np.eye(classes)[y.astype(int)]
    else:
        return None
    present = np.count_nonzero(targets.sum(axis=0))
    return targets if 2 * present > min(classes, len(targets)) else None


def _logarithms(answer):
    """Logarithms of the probabilities, `(examples, classes)`."""
    answer = answer.reshape(-1, answer.shape[-1])
    sums = answer.sum(axis=-1)
    if np.all(answer >= 0) and np.allclose(
        sums, 1, atol=probabilities.HALF_TOLERANCE
    ):
        answer = np.log(np.maximum(answer, probabilities.SMALLEST))
    answer = answer - answer.max(axis=-1, keepdims=True)
    return answer - np.log(np.sum(np.exp(answer), axis=-1, keepdims=True))


def _frequencies(targets):
    """Logarithms of the class frequencies, with one example added to each class
    because the chosen examples may lack it."""
    counts = targets.sum(axis=0) + 1.0
    return np.log(counts / counts.sum())
