"""Numbers of channels, of which costs are made.

A factor of a cost is a pair of an `Expression` and the number of channels that
this has, or stands for if it is a single value.
"""

import numpy as np

from keras_bar.analysis.evaluation import Evaluation
from keras_bar.analysis.evaluation import evaluate


def count(factors, gates, xp=np):
    """Numbers of channels at given gate vectors.

    Args:
        factors: List of factors.
        gates: Dict from gate to values in [0, 1], `(..., channels)`.
        xp: `numpy`, or `keras.ops` inside a training step.

    Returns:
        Dict from factor to its number of channels, `(...)`.
    """
    values = evaluate([expression for expression, _ in factors], gates, xp)
    return _counted(factors, values, xp)


def count_after(changes, factors, gates):
    """Numbers of channels after each of some changes.

    Args:
        changes: List of dicts from gate to its other vector.
        factors: List of factors.
        gates: Dict from gate to a vector `(channels,)` in [0, 1], before the
            changes.

    Returns:
        Dict from factor to its numbers of channels, `(changes,)`.
    """
    evaluation = Evaluation([expression for expression, _ in factors], gates)
    before = _counted(factors, evaluation.values, np)
    counts = {x: np.full(len(changes), y) for x, y in before.items()}
    for i, change in enumerate(changes):
        values = evaluation.changes(change)
        changed = [x for x in factors if x[0] in values]
        for x, y in _counted(changed, values, np).items():
            counts[x][i] = y
    return counts


def narrowed(gates, keep):
    """Vectors of a network whose channels are kept by chance.

    Args:
        gates: List of gates.
        keep: Float in (0, 1], the keep probability of all channels, or a dict
            of one per gate, by default 1, and 0 for closed ones. The first
            channel of each open gate is certain.

    Returns:
        Dict from gate to a vector `(channels,)`.
    """
    vectors = {}
    for gate in gates:
        each = keep.get(gate, 1) if isinstance(keep, dict) else keep
        vectors[gate] = np.full(gate.channels, float(each))
        vectors[gate][0] = each > 0
    return vectors


def _counted(factors, values, xp):
    return {
        (x, size): (
            xp.sum(values[x], axis=-1)
            if x.size > 1
            else values[x][..., 0] * size
        )
        for x, size in factors
    }
