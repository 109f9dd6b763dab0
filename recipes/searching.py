"""Finds the strength of a penalty that leads to a budget."""

import math

# A network within this factor of the wanted size is near enough.
NEAR = 1.1
TRIALS = 7
# How far to go where all trials lie on one side: further each time.
STRIDE = 4.0


def search(attempt, target, strength):
    """Tries strengths until the result has the wanted size.

    Sizes are taken to fall with the strength; between two trials their
    logarithms are interpolated.

    Args:
        attempt: Function from a strength to a result and its size, a fraction
            in (0, 1].
        target: The wanted size.
        strength: The strength to begin with.

    Returns:
        The strength whose size came nearest to the target, by their ratio,
        and its result.
    """
    sizes, best = {}, None
    for _ in range(TRIALS):
        result, size = attempt(strength)
        sizes[strength] = size
        miss = abs(math.log(size / target))
        if best is None or miss < best[0]:
            best = miss, strength, result
        if miss <= math.log(NEAR):
            break
        strength = next_strength(sizes, target)
    return best[1:]


def next_strength(sizes, target):
    """Where to try next.

    Args:
        sizes: Dict from the strengths tried to the sizes they led to.
        target: The wanted size.

    Returns:
        A strength.
    """
    weak = max((x for x, size in sizes.items() if size > target), default=None)
    strong = min(
        (x for x, size in sizes.items() if size <= target), default=None
    )
    if weak is None:
        return strong / STRIDE ** len(sizes)
    if strong is None:
        return weak * STRIDE ** len(sizes)
    a, b = math.log(sizes[weak]), math.log(sizes[strong])
    share = (a - math.log(target)) / (a - b) if a > b else 0.5
    # Not so near to a trial that nothing new would be learned.
    share = min(max(share, 0.1), 0.9)
    return weak * (strong / weak) ** share
