"""Networks of equal FLOPs, for comparisons with other packages."""

import keras_bar

# Criteria of torch-pruning.
PEERS = ("magnitude", "taylor", "group norm")


def keras_flops(model):
    return keras_bar.measure_cost(model).flops


def nearest(build, cost, target, low, high):
    """What `build` makes of the number in an interval for which the cost, which
    falls with it, is nearest to `target`."""
    tried = []
    for _ in range(14):
        x = (low * high) ** 0.5
        found = cost(build(x))
        tried.append((abs(found - target), x))
        low, high = (x, high) if found > target else (low, x)
    return build(min(tried)[1])
