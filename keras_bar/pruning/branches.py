"""Branches that a network does without, under a latency."""

import numpy as np

from keras_bar.analysis.evaluation import Evaluation
from keras_bar.budget import selection
from keras_bar.costs import is_object
from keras_bar.pruning.shares import balanced_shares

# The part of a budget by which shares may exceed it: widths will be whole.
TOLERANCE = 0.01


def balanced(cost_model, metric, target, gates):
    """The `Balance` of a budget, in which branches that do not pay are closed
    if the metric is an object: part of the time of a layer does not depend on
    its width.

    A closed branch loses what it would lose by narrowing each gate to one
    channel. Branches close one by one, as long as the loss is less than what
    the others gain from the cost that is saved.

    Args:
        cost_model: `CostModel`.
        metric: The metric of the cost.
        target: The budget, in units of the metric.
        gates: List of gates. All others keep all channels.
    """
    closed: set = set()
    best = balance = balanced_shares(cost_model, metric, target, gates)
    if not is_object(metric):
        return balance
    branches = _branches(cost_model, metric, gates)
    while ratios := _ratios(cost_model, metric, balance, branches, closed):
        worst = min(ratios, key=lambda gate: ratios[gate])
        fits = balance.cost <= (1 + TOLERANCE) * target
        if fits and ratios[worst][0] >= 1:
            break
        closed |= branches[worst]
        balance = balanced_shares(cost_model, metric, target, gates, closed)
        # Times with steps have no smooth optimum, so each set is judged again.
        best = min(best, balance, key=lambda x: _rank(x, target))
    return best


def _rank(balance, target):
    """What is within a budget comes first, and then what loses least."""
    excess = balance.cost - (1 + TOLERANCE) * target
    return max(excess, 0.0), balance.total()


def _ratios(cost_model, metric, balance, branches, closed):
    """Dict from the gates of open branches to what closing one loses, relative
    to what the others gain from the cost that is saved; and, for those that
    lose nothing, to their weight relative to this cost."""
    vectors = {}
    for gate in cost_model.gates:
        share = 0.0 if gate in closed else balance.shares.get(gate, 1.0)
        vectors[gate] = np.full(gate.channels, share)
    others = {
        gate: np.zeros(gate.channels) for gate in branches if gate not in closed
    }
    cost = cost_model.hard(vectors)[metric]
    left = cost_model.changed_costs(metric, vectors, others)
    ratios = {}
    for gate, without in left.items():
        if saved := max(cost - without, 0.0):
            lost = sum(map(balance.loss_of_closing, branches[gate] - closed))
            weight = sum(balance.weights[x] for x in branches[gate])
            ratios[gate] = (lost / (balance.price * saved), weight / saved)
    return ratios


def _branches(cost_model, metric, gates):
    """Dict from the gates that may close entirely to the set of those that have
    nothing to do then."""
    required = selection.required_gates(cost_model, metric)
    analysis = cost_model.analysis
    live = {
        node.op: analysis.live(node.output)
        for node in analysis.graph.nodes
        if node.op in gates
    }
    masks = {x: np.ones(x.channels) for x in cost_model.gates}
    evaluation = Evaluation(live.values(), masks)
    found = {}
    for gate in gates:
        if gate not in required:
            values = evaluation.changes({gate: np.zeros(gate.channels)})
            dead = [x for x in live if not np.any(values.get(live[x], 1))]
            found[gate] = {gate, *dead}
    return found
