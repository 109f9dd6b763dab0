"""Shares of the channels that balance what layers lose and cost."""

import dataclasses

import numpy as np

# A layer that keeps the share k adds a loss proportional to k ** -EXPONENT.
EXPONENT = 0.5
# Steps of `balanced_shares`. A step leaves two thirds of the distance, or less.
STEPS = 40
# Steps where the start is the balance before one more branch closed.
MORE_STEPS = 10


@dataclasses.dataclass
class Balance:
    """Shares of the channels that balance what layers lose and cost.

    Attributes:
        shares: Dict from gate to a float in (0, 1]; without the closed gates.
        weights: Dict from gate to the FLOPs of the full network that its
            channels take part in.
        price: Float, the loss that one unit of the metric saves.
    """

    shares: dict
    weights: dict
    price: float = 0.0

    def loss(self, gate):
        """The loss that a gate adds. A closed one loses a little more than one
        that is narrowed to a channel."""
        share = self.shares.get(gate, 1 / (gate.channels + 1))
        return self.weights[gate] * share**-EXPONENT

    def loss_of_closing(self, gate):
        """The further loss if a gate closes."""
        least = (gate.channels + 1) ** EXPONENT
        return self.weights[gate] * least - self.loss(gate)

    def total(self):
        """The loss of all gates."""
        return sum(map(self.loss, self.weights))

    def scaled(self, factor):
        """The balance of shares that are multiplied, down to one channel."""
        shares = {
            gate: max(factor * share, 1 / gate.channels)
            for gate, share in self.shares.items()
        }
        return dataclasses.replace(self, shares=shares)

    def keep_probabilities(self):
        """Dict from gate to the probability of its channels, but the first one,
        which is certain; 0 for closed gates."""
        return dict.fromkeys(self.weights, 0.0) | _others(self.shares)


def _others(shares):
    """Dict from gate to the probability of its channels but the first one."""
    return {
        gate: np.clip(
            (share * gate.channels - 1) / max(gate.channels - 1, 1), 1e-6, 1.0
        )
        for gate, share in shares.items()
    }


def balanced_shares(cost_model, metric, target, gates, closed=(), start=None):
    """The shares of the channels that balance what layers lose and cost.

    A gate that keeps the share k of its channels is assumed to add w / sqrt(k)
    to the loss, where w are the FLOPs of the full network that its channels
    take part in: whoever designed the network gave FLOPs to the layers where
    they pay. The shares minimise the sum of this within the budget, so that

        w / sqrt(k)  is proportional to  k dC/dk

    for the gates that are neither whole nor down to a channel. The FLOPs of
    convolutions are products of two shares, and equal shares solve this. For
    volume the channels of large images, which cost most of it, have smaller
    shares than the others; for parameters they have larger ones. For memory,
    the moments above the budget are narrowed evenly.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the cost C.
        target: The budget, in units of the metric.
        gates: List of gates. All others keep all channels.
        closed: Those of them that have no channel.
        start: A `Balance` to start from, of fewer closed ones.

    Returns:
        A `Balance`.
    """
    if not gates:
        return Balance({}, {})
    if metric == "memory":  # A maximum over moments, which has no slopes.
        narrowed = cost_model.memory.narrowed(target)
        return Balance({gate: narrowed[gate] for gate in gates}, {})
    if start is None:
        full = _slopes(cost_model, "flops", gates, np.ones(len(gates)))[1]
        weights = dict(zip(gates, full.tolist(), strict=True))
    else:
        weights = start.weights
    gates = [x for x in gates if x not in closed]
    if not gates:
        return Balance({}, weights)
    none = dict.fromkeys(closed, 0.0)
    sizes = np.array([gate.channels for gate in gates])
    losses = np.array([weights[gate] for gate in gates])
    logs = np.zeros(len(gates))
    if start is not None:
        logs = np.log([start.shares[gate] for gate in gates])
    for _ in range(STEPS if start is None else MORE_STEPS):
        cost, slopes = _slopes(cost_model, metric, gates, np.exp(logs), none)
        free = (logs < 0) & (np.exp(logs) * sizes > 1)
        if not free.any():
            free[:] = True
        steps = np.log(losses / slopes) - EXPONENT * logs
        steps /= 1 + EXPONENT
        # To the first order the cost stays, and then it becomes the target.
        steps -= np.average(steps[free], weights=slopes[free])
        steps += np.log(target / cost) * cost / slopes[free].sum()
        logs = np.clip(logs + steps, -np.log(sizes), 0.0)
    saved = EXPONENT * losses * np.exp(-EXPONENT * logs)
    shares = dict(zip(gates, np.exp(logs).tolist(), strict=True))
    return Balance(shares, weights, saved[free].sum() / slopes[free].sum())


def _slopes(cost_model, metric, gates, shares, closed=None):
    """The cost at shares of the channels, and its derivatives by their
    logarithms."""
    sizes = np.array([gate.channels for gate in gates])
    keep = _others(dict(zip(gates, shares, strict=True))) | (closed or {})
    cost, marginal = cost_model.marginal_costs(metric, keep)
    return cost, shares * sizes * np.array([marginal[gate] for gate in gates])
