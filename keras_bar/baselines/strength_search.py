"""Finds the strength of a penalty that leads to a budget."""

import math
from collections.abc import Callable
from collections.abc import Iterable

# Base of the factor between strengths while all trials lie on one side of the
# target; the factor grows with every trial.
STRIDE = 4.0


def find_strength(
    attempt: Callable[[float], float],
    target: float,
    strength: float,
    near: float = 1.2,
    trials: int = 7,
    known: Iterable[float] = (),
) -> float:
    """Searches for the strength of a penalty that leads to a target size.

    The penalties of the baselines have a strength and no budget. This function
    prunes with several strengths until the pruned network has the target size.
    It assumes that the size falls as the strength grows, and interpolates the
    logarithms of the sizes between two trials.

    Args:
        attempt: Function from a strength to the size of the pruned network, a
            fraction of the full one in (0, 1]. It prunes, so it takes long.
        target: Float, the target size.
        strength: Float, the initial strength.
        near: Float, the largest accepted ratio of size and target, either way.
            At 1/16 a single channel can be a tenth of the pruned network, so
            few networks come closer than the default.
        trials: Integer, the maximum number of strengths to try, besides the
            known ones.
        known: Strengths that were tried before, and whose sizes `attempt`
            returns without pruning again.

    Returns:
        Float, the strength whose size is nearest to the target, by their
        ratio.

    Example:

    >>> from keras_bar import baselines
    >>> def attempt(strength):  # Prunes, and measures what is left.
    ...     return 1 / (1 + 1e4 * strength)
    >>> strength = baselines.find_strength(attempt, 1 / 4, strength=1e-2)
    >>> round(attempt(strength), 2)
    0.27
    """
    sizes = {x: attempt(x) for x in known}

    def miss(strength):
        return abs(math.log(sizes[strength] / target))

    for trial in range(trials):
        if sizes and min(map(miss, sizes)) <= math.log(near):
            break
        if sizes:
            strength = next_strength(sizes, target, max(trial, 1))
        sizes[strength] = attempt(strength)
    return min(sizes, key=miss)


def next_strength(sizes, target, trial):
    """The next strength to try, rounded to three digits.

    Args:
        sizes: Dict from the strengths that were tried to their sizes.
        target: Float, the target size.
        trial: Integer, the number of strengths tried since the first.
    """
    weak = max((x for x, size in sizes.items() if size > target), default=None)
    strong = min(
        (x for x, size in sizes.items() if size <= target), default=None
    )
    if weak is None:
        found = strong / STRIDE**trial
    elif strong is None:
        found = weak * STRIDE**trial
    else:
        a, b = math.log(sizes[weak]), math.log(sizes[strong])
        share = (a - math.log(target)) / (a - b) if a > b else 0.5
        # A strength very close to an earlier one would bring nothing new.
        share = min(max(share, 0.1), 0.9)
        found = weak * (strong / weak) ** share
    return float(f"{found:.3g}")
