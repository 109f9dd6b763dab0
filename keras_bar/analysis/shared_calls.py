"""Layers with weights that the model calls more than once.

One kernel serves all calls, so it keeps the channels that any of them needs: it
reads the union of what the inputs of all calls hold, and writes the union of
what is read behind them. Whatever a call lacks of these is restored in front of
it, and what nobody reads is dropped behind it. The rule of the layer does not
know about other calls: it is asked with the channels of all calls in the place
of those of one.

A constant that enters one call cannot be moved into the bias, which all calls
add, unless it enters all of them, and their images have one size if it ends at
their borders. Otherwise it is restored, too, so that only channels that are
exactly 0 in all calls are not read.
"""

import collections
import copy
import dataclasses

import numpy as np

from keras_bar.analysis import constant_origins
from keras_bar.analysis import rule_registry


def obstacle(node):
    """Why the rule of its kind cannot hold for all calls of a shared layer; an
    empty string if it can."""
    if rule_registry.is_registered(node.op):
        return "by a registered rule"
    if len(node.inputs) != 1 or len(node.outputs) != 1:
        return "with several tensors"
    return ""


def has_rule(node, analysis):
    """Whether a node is a call of a shared layer that may lose channels."""
    return node.shares_weights and not analysis.rules[node].reason


def disagreements(analysis):
    """Dict from shared layers that their calls treat differently, by the first
    call, to the reason why they have to keep all channels."""
    found = {}
    for node in analysis.graph.nodes:
        if not node.shares_weights or node is not node.shared_calls[0]:
            continue
        kinds = {_kind(x, analysis) for x in node.shared_calls}
        if len(kinds) == 1:
            continue
        rules = [analysis.rules[x] for x in node.shared_calls]
        reasons = [x.reason for x in rules if x.reason and not x.restores]
        why = reasons[0] if reasons else "along different axes"
        found[node] = f"the model calls it {node.calls} times: {why}"
    return found


def foldable(analysis):
    """Set of the first calls of shared layers into whose bias the constants can
    be moved that enter them, which are the same in all calls."""
    found = set()
    for node, rule in analysis.rules.items():
        calls = node.shared_calls
        if node is not calls[0] or not has_rule(node, analysis):
            continue
        values = [x.inputs[0] for x in calls]
        if (
            rule.has_kernel
            and rule.mixes_channels
            and type(rule).folds_constants
            and any(analysis.channels[x].constant for x in values)
            and (
                len({x.shape for x in values}) == 1
                or not any(rule.sees_end(x, analysis) for x in calls)
            )
            and constant_origins.are_same(values, analysis)
        ):
            found.add(node)
    return found


def _kind(node, analysis):
    """What must be the same in all calls of a layer."""
    rule, axis = analysis.rules[node], analysis.channels[node.output].axis
    last = None if axis is None else axis - len(node.output.shape)
    return type(rule), last


def reads(node, analysis):
    """Which input channels a shared layer reads in some call."""
    if analysis.rules[node].folds_constants:
        return analysis.channels[node.inputs[0]].alive
    return _nonzero(node, analysis)


def _nonzero(node, analysis):
    """Which input channels may hold something in some call."""
    return analysis.algebra.disjunction(
        *(analysis.channels[x.inputs[0]].nonzero for x in node.shared_calls)
    )


def writes(node, analysis):
    """Which output channels a shared layer computes in some call."""
    union = analysis.algebra.disjunction(
        *(analysis.live(x.output) for x in used_calls(node, analysis))
    )
    seen = _with_channels(node, analysis, reads(node, analysis), union)
    return analysis.rules[node].round_up(node, union, seen)


def used_calls(node, analysis):
    """The calls of a layer whose output anyone reads."""
    return [
        x
        for x in node.shared_calls
        if any(y in analysis.needed for y in x.outputs)
    ]


def entering(node, analysis):
    """The analysis in which the dead channels of the input of a shared layer
    are those that are 0: no other constant is moved into its weights."""
    if analysis.rules[node].folds_constants:
        return analysis
    (value,) = node.inputs
    channels = analysis.channels[value]
    seen = copy.copy(analysis)
    seen.channels = collections.ChainMap(
        {value: dataclasses.replace(channels, alive=channels.nonzero)},
        analysis.channels,
    )
    return seen


def of_call(node, analysis):
    """The analysis in which a call of a shared layer reads and writes what all
    calls do; or nothing, if nobody reads its output."""
    algebra = analysis.algebra
    is_built = algebra.any(analysis.live(node.output))
    made = algebra.conjunction(is_built, writes(node, analysis))
    return _with_channels(node, analysis, reads(node, analysis), made)


def of_weights(node, analysis):
    """The analysis in which a call of a shared layer reads and writes what all
    calls do, even if nobody reads its own output."""
    made = writes(node, analysis)
    return _with_channels(node, analysis, reads(node, analysis), made)


def _with_channels(node, analysis, read, made):
    """The analysis with other channels of the input and output of a node."""
    (value,), output, full = node.inputs, node.output, analysis.algebra.full
    seen, channels = copy.copy(analysis), analysis.channels
    seen.channels = collections.ChainMap(
        {
            value: dataclasses.replace(
                channels[value],
                alive=read,
                nonzero=_nonzero(node, analysis),
            ),
            output: dataclasses.replace(
                channels[output], alive=full, nonzero=full
            ),
        },
        channels,
    )
    seen.needed = collections.ChainMap({output: made}, analysis.needed)
    return seen


def terms(node, analysis):
    """The cost of a node, list of `Term`. The weights of a layer exist once, no
    matter how often it is called."""
    rule = analysis.rules[node]
    # A boundary knows that it is called several times.
    if not node.shares_weights or (rule.reason and not rule.restores):
        return rule.terms(node, analysis)
    each = rule.terms(node, of_call(node, analysis))
    found = [x for x in each if x.metric != "params"]
    if node is used_calls(node, analysis)[0]:
        every = rule.terms(node, of_weights(node, analysis))
        found += [x for x in every if x.metric == "params"]
    return found


def rebuild(node, builder):
    """The output of a call in the compact model.

    Args:
        node: `Node`.
        builder: `keras_bar.compaction.building.Builder`.
    """
    analysis, resolved = builder.analysis, builder.resolved
    rule, output = analysis.rules[node], node.output
    calls = used_calls(node, analysis)
    view = copy.copy(builder)
    view.analysis = of_weights(node, analysis)
    view.order, view.tensors = {**builder.order}, {**builder.tensors}
    stored = [builder.order[x.output] for x in calls]
    wanted = builder.order[output]
    if wanted is not None:
        made = resolved.holds(writes(node, analysis))
        size = analysis.channels[output].size
        view.order[output] = _in_order(stored, made, size)
    if rule.has_kernel and rule.mixes_channels:
        (value,) = node.inputs
        axis = rule.axis(node, value)
        size, orders = (
            value.shape[axis],
            [builder.order[x.inputs[0]] for x in calls],
        )
        read = resolved.holds(reads(node, analysis))
        read = _in_order(orders, read, size)
        view.order[value] = read
        view.tensors[value] = builder.read(value, read, axis)
    (tensor,) = rule.rebuild(node, view)
    if wanted is None:
        return [tensor]
    axis = analysis.channels[output].axis
    return [builder.select(tensor, view.order[output], wanted, axis)]


def _in_order(orders, mask, size):
    """The channels of a mask in an order that is the same for all calls: as
    the tensors store them, as far as they do."""
    mask = np.broadcast_to(mask, size)
    known = [x for x in orders if x is not None]
    channels = np.concatenate([*known, np.arange(size)]).tolist()
    return np.array([x for x in dict.fromkeys(channels) if mask[x]], int)


def run(node, writer):
    """Adds what a call does to a program.

    Args:
        node: `Node`.
        writer: `keras_bar.analysis.arena_program.ProgramWriter`.
    """
    analysis, output = writer.analysis, node.output
    rule, view = analysis.rules[node], copy.copy(writer)
    view.analysis = of_weights(node, analysis)
    view.live, view.tensors = {**writer.live}, {**writer.tensors}
    made = writer.holds(writes(node, analysis))
    view.live[output] = np.broadcast_to(made, writer.channels(output))
    if rule.has_kernel and rule.mixes_channels:
        (value,) = node.inputs
        read = writer.holds(reads(node, analysis))
        view.live[value] = np.broadcast_to(read, writer.channels(value))
        view.tensors[value] = writer.read(node, value, view.live[value])
    rule.run(node, view)
    stored = int(view.live[output].sum())
    writer.select(node, view.tensors[output], stored, output)


def order_ties(node, analysis):
    """The tensors at other calls that best store their channels in the same
    order; see `keras_bar.analysis.rules.base.Rule.order_ties`."""
    first = node.shared_calls[0]
    if node is first or not has_rule(node, analysis):
        return []
    pairs = [(node.output, first.output)]
    if analysis.rules[node].mixes_channels:
        pairs.append((node.inputs[0], first.inputs[0]))
    channels, found = analysis.channels, []
    for here, there in pairs:
        if None not in (channels[here].axis, channels[there].axis):
            everything = np.arange(channels[here].size)
            found.append((here, everything, there, everything))
    return found
