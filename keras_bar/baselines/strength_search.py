"""Finds the strength of a penalty that leads to a budget."""

import math
from collections.abc import Callable
from collections.abc import Iterable

# How far to go where all trials lie on one side: further each time.
STRIDE = 4.0


def find_strength(
    attempt: Callable[[float], float],
    target: float,
    strength: float,
    near: float = 1.2,
    trials: int = 7,
    known: Iterable[float] = (),
) -> float:
    """Searches for the strength of a penalty that leads to a wanted size.

    The penalties of the baselines have a strength and no budget. This function
    prunes with several strengths, until the pruned network has the wanted size.
    Sizes are taken to fall with the strength; between two trials, their
    logarithms are interpolated.

    Args:
        attempt: Function from a strength to the size of the pruned network, a
            fraction of the full one in (0, 1]. It prunes, so it takes long.
        target: Float, the wanted size.
        strength: Float, the strength to begin with.
        near: Float, by what factor the size may miss the target. At 1/16 a
            single channel can be a tenth of what is left, and few networks are
            nearer than the default.
        trials: Integer, how many strengths are tried at most, besides the known
            ones.
        known: Strengths that were tried before, and whose sizes `attempt` tells
            without pruning again.

    Returns:
        Float, the strength whose size came nearest to the target, by their
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
    """The strength to try next, rounded to three digits.

    Args:
        sizes: Dict from the strengths that were tried to their sizes.
        target: Float, the wanted size.
        trial: Integer, how many strengths were tried since the first.
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
        # Not so near to a trial that nothing new would be learned.
        share = min(max(share, 0.1), 0.9)
        found = weak * (strong / weak) ** share
    return float(f"{found:.3g}")
