"""Finds the strength of a penalty that leads to a budget."""

import math

# A network within this factor of the wanted size is near enough. At 1/16 a
# single channel can be a tenth of what is left, and few networks are nearer.
NEAR = 1.2
TRIALS = 7
# How far to go where all trials lie on one side: further each time.
STRIDE = 4.0


def recorded(run, name, attempt, target, strength, near, known):
    """Searches as `search` does, once: what was found is written down, and so
    is what the search began with, so that an interrupted one takes the same
    steps again: in a file `name` of a `Run`'s folder.
    """
    record = run.agree(name, {"known": list(known)})
    if "strength" not in record:
        record["strength"] = search(
            attempt, target, strength, near, record["known"]
        )
        run.write(name, record)
    return record["strength"]


def search(attempt, target, strength, near=NEAR, known=()):
    """Tries strengths until the result has the wanted size.

    Sizes are taken to fall with the strength; between two trials their
    logarithms are interpolated.

    Args:
        attempt: Function from a strength to the size of the result, a fraction
            in (0, 1].
        target: The wanted size.
        strength: The strength to begin with.
        near: Float, by what factor the size may miss the target.
        known: Strengths that were tried before.

    Returns:
        The strength whose size came nearest to the target, by their ratio.
    """
    sizes = {x: attempt(x) for x in known}

    def miss(strength):
        return abs(math.log(sizes[strength] / target))

    for trial in range(TRIALS):
        if sizes and min(map(miss, sizes)) <= math.log(near):
            break
        if sizes:
            strength = next_strength(sizes, target, max(trial, 1))
        sizes[strength] = attempt(strength)
    return min(sizes, key=miss)


def next_strength(sizes, target, trial):
    """Where to try next, in the step `trial` from the first strength, if these
    `sizes` were found: a strength, rounded to three digits."""
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
