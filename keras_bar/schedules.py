"""The schedule and the barrier of a budget, as pure functions on `keras.ops`.

All functions broadcast their arguments, which may be Python floats, arrays or
tensors, and compute in float32.
"""

from typing import Any
from typing import TypeAlias

import numpy as np
from keras import ops

# A tensor of any backend, or anything that it converts: floats, lists, arrays.
Tensor: TypeAlias = Any

# Maximum of the barrier, and its value from the upper end onwards.
BARRIER_MAX = 1e10
# Lower end of the barrier below the budget, as a fraction of the full cost.
MARGIN = 1e-4
# Excess of the initial moving budget over the full cost, as a fraction of it.
HEADROOM = 0.01

# Below this hardness the transition equals the line `t` to the precision of
# float32, while the quotient that defines it becomes 0/0.
_SOFTEST = 1e-3
# Above this hardness the transition equals the step to the precision of
# float32, while the product of `d` and `t - 1/2` becomes infinity times 0.
_HARDEST = 1e30


def sigmoidal_transition(t: Tensor, d: float = 10.0) -> Tensor:
    """Rises from exactly 0 at `t = 0` to exactly 1 at `t = 1`.

    This is `T(t, d)`, equation (1) of the supplement: a sigmoid, shifted and
    scaled to pass through both ends.

    Args:
        t: Tensor, the fraction of the pruning steps done. Clipped to [0, 1].
        d: Non-negative Python float, the hardness: 0 gives the line `t`, large
            values approach the step at `t = 1/2`.

    Returns:
        Tensor of values in [0, 1] with the shape of `t`.

    Example:

    >>> done = keras_bar.schedules.sigmoidal_transition([0.0, 0.25, 0.5, 1.0])
    >>> print(keras.ops.convert_to_numpy(done).round(3))
    [0.   0.07 0.5  1.  ]
    """
    if not isinstance(d, int | float | np.number) or not d >= 0:
        raise ValueError(
            "Invalid value received for argument `d`. Expected a non-negative "
            f"float, the hardness of the transition. Received: d={d!r}"
        )
    t = ops.clip(_float32(t), 0.0, 1.0)
    if d < _SOFTEST:
        return t
    d = _float32(min(d, _HARDEST))
    # This is equation (1) with `sigmoid(x) = (1 + tanh(x/2)) / 2`, which avoids
    # the small differences of its printed form.
    curve = 0.5 + 0.5 * ops.tanh(d * (t - 0.5) / 2) / ops.tanh(d / 4)
    # Compilers may round the two calls of `tanh` differently.
    at_end = ops.logical_or(t <= 0, t >= 1)
    return ops.where(at_end, t, ops.clip(curve, 0.0, 1.0))


def moving_budget(
    t: Tensor, budget: Tensor, full_cost: Tensor, d: float = 10.0
) -> Tensor:
    """Budget in force after a fraction `t` of the pruning steps.

    This is `b(t) = (1 - T) (1 + HEADROOM) V_F + T B`, with `T` the
    `sigmoidal_transition`: it starts just above the cost of the unpruned model
    and ends exactly at the budget.

    Args:
        t: Tensor, the fraction of the pruning steps done. Clipped to [0, 1].
        budget: Tensor, the final budget in the units of `full_cost` (not a
            fraction of it).
        full_cost: Tensor, the cost of the unpruned model.
        d: Non-negative Python float, the hardness of the transition.

    Returns:
        Tensor in the units of `full_cost`.

    Example:

    >>> budget = keras_bar.schedules.moving_budget([0.0, 0.5, 1.0], 125, 1000)
    >>> keras.ops.convert_to_numpy(budget).tolist()
    [1010.0, 567.5, 125.0]
    """
    done = sigmoidal_transition(t, d)
    start = (1 + HEADROOM) * _float32(full_cost)
    return (1 - done) * start + done * _float32(budget)


def barrier(cost: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """Penalty that rises from 0 at `lower` towards infinity at `upper`.

    This is `f(V, a, b) = r^2 / (1 - r)` with `r = max(0, (V - a) / (b - a))`,
    clipped to `BARRIER_MAX`. It is also `BARRIER_MAX` for a cost of `upper` or
    more, and for an empty interval (`upper <= lower`). No gradient flows
    through `cost`.

    Args:
        cost: Tensor, the current cost `V` of the model.
        lower: Tensor, the cost `a` up to which there is no penalty, in the
            units of `cost`.
        upper: Tensor, the cost `b` that must not be reached, in the units of
            `cost`.

    Returns:
        Tensor of values in [0, `BARRIER_MAX`], dimensionless.

    Example:

    >>> penalty = keras_bar.schedules.barrier([100.0, 150.0, 200.0], 100, 200)
    >>> keras.ops.convert_to_numpy(penalty).tolist()
    [0.0, 0.5, 10000000000.0]
    """
    cost = ops.stop_gradient(_float32(cost))
    lower, upper = _float32(lower), _float32(upper)
    below = ops.logical_and(cost < upper, lower < upper)
    r = ops.maximum((cost - lower) / (upper - lower), 0.0)
    penalty = ops.minimum(r * r / (1 - r), BARRIER_MAX)
    return ops.where(below, penalty, BARRIER_MAX)


def _float32(x):
    return ops.convert_to_tensor(x, dtype="float32")
