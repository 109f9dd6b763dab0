"""Branches that a network does without, under a latency."""

import numpy as np

from keras_bar.analysis.channel_counts import narrowed
from keras_bar.analysis.evaluation import Evaluation
from keras_bar.budget import selection
from keras_bar.costs import is_object
from keras_bar.pruning.shares import balanced_shares

# Halvings of the interval in which the factor of all shares is searched.
BISECTIONS = 12


def balanced(cost_model, metric, target, gates, skip=()):
    """The `Balance` of a budget, in which branches that do not pay are closed
    if the metric is an object: part of the time of a layer does not depend on
    its width.

    A closed branch loses a little more than one that is narrowed to a channel
    in each of its gates. Branches close one by one, as long as the loss is less
    than what the others gain from the cost that is saved, or as one channel in
    each gate is still too much.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the cost.
        target: The budget, in units of the metric.
        gates: List of gates. All others keep all channels.
        skip: Names of layers that stay.
    """
    balance = balanced_shares(cost_model, metric, target, gates)
    if not is_object(metric) or not gates:
        return balance

    def cost(balance):
        vectors = narrowed(cost_model.gates, balance.keep_probabilities())
        return cost_model.hard(vectors)[metric]

    branches = _branches(cost_model, metric, gates, skip)
    closed: set = set()
    found = []
    while True:
        # Times with steps have no smooth optimum, so that shares may exceed the
        # budget, and each set of branches is judged again.
        fitted, left = _fitted(balance, cost, target)
        excess = max(left - target, 0.0)
        found.append((excess, fitted.total(), fitted))
        ratios = _ratios(cost_model, metric, fitted, left, branches, closed)
        worst = min(ratios, key=lambda gate: ratios[gate], default=None)
        if worst is None or (not excess and ratios[worst][0] >= 1):
            break
        closed |= branches[worst]
        balance = balanced_shares(
            cost_model, metric, target, gates, closed, start=balance
        )
    return min(found, key=lambda x: x[:2])[-1]


def _fitted(balance, cost, target):
    """A balance, narrowed until it is within a budget, if it can be; and its
    cost."""
    if (found := cost(balance)) <= target:
        return balance, found
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fits = cost(balance.scaled(middle)) <= target
        low, high = (middle, high) if fits else (low, middle)
    fitted = balance.scaled(low)
    return fitted, cost(fitted)


def _ratios(cost_model, metric, balance, cost, branches, closed):
    """Dict from the gates of open branches to what closing one loses, relative
    to what the others gain from the cost that is saved; and to its weight
    relative to this cost."""
    vectors = narrowed(cost_model.gates, balance.keep_probabilities())
    zeros = {x: np.zeros(x.channels) for x in branches if x not in closed}
    left = cost_model.changed_costs(metric, vectors, zeros)
    ratios = {}
    for gate, without in left.items():
        if (saved := cost - without) > 0:
            open_ones = branches[gate] - closed
            weight = sum(balance.weights[x] for x in open_ones)
            lost = sum(map(balance.loss_of_closing, open_ones))
            ratios[gate] = (lost / (balance.price * saved), weight / saved)
    return ratios


def _branches(cost_model, metric, gates, skip):
    """Dict from the gates that may close entirely to the set of those that have
    nothing to do then. No layer to skip goes with them."""
    required = selection.required_gates(cost_model, metric)
    analysis = cost_model.analysis
    skip = {skip} if isinstance(skip, str) else {*skip}
    # A gate may multiply several tensors.
    live: dict = {gate: [] for gate in gates}
    stays = []
    for node, rule in analysis.rules.items():
        expression = analysis.live(node.output)
        if rule.gate(node) in live:
            live[rule.gate(node)].append(expression)
        elif node.is_named(skip):
            stays.append(expression)
    masks = {x: np.ones(x.channels) for x in cost_model.gates}
    evaluation = Evaluation([*sum(live.values(), []), *stays], masks)
    found = {}
    for gate in gates:
        if gate not in required:
            values = evaluation.changes({gate: np.zeros(gate.channels)})
            if all(np.any(values.get(x, 1)) for x in stays):
                dead = {
                    x
                    for x, tensors in live.items()
                    if x not in required
                    and not any(np.any(values.get(y, 1)) for y in tensors)
                }
                found[gate] = {gate, *dead}
    return found
