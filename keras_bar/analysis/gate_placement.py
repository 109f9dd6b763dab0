"""The places of gates: behind every convolution and hidden dense layer whose
channels are free, and behind the values of attention."""

import dataclasses

import keras

from keras_bar import keras_internals
from keras_bar.analysis import shared_placements
from keras_bar.analysis.placement import Placement
from keras_bar.analysis.residual_groups import ResidualGroups
from keras_bar.analysis.rules.kernels import following_norm
from keras_bar.analysis.width_placement import place_widths


def place_gates(analysis, skip=()):
    """Chooses the place of the gate of every layer that can have one.

    Args:
        analysis: `ChannelAnalysis` of a graph.
        skip: Names of layers that get no gate.

    Returns:
        List of `Placement`, one per convolution, hidden dense layer,
        projection to the values of attention, and layer that cannot be pruned.
    """
    placements: list[Placement] = []
    for node, rule in analysis.rules.items():
        if rule.prunable:
            if node.is_named(skip):
                place = Placement(node.name, node, None, "was skipped")
            else:
                place = _place(node, analysis, placements)
            placements.append(place)
        elif _has_kernel(node.op):
            placements.append(Placement(node.name, node, None, rule.reason))
        else:
            placements.extend(_hidden(node, rule))
    agreed = shared_placements.agreed(placements, analysis)
    kept = [x for x in agreed if not _gives_output(x, analysis)]
    return _with_fronts(kept) + place_widths(analysis, skip)


def _with_fronts(placements):
    """Placements in which a layer in front of a convolution in groups that has
    no gate has one: for some channels of each group, which remain."""
    gated = {x.node for x in placements if x.value is not None or x.gated}
    return [
        dataclasses.replace(
            x,
            value=x.front[1],
            reason="",
            front=None,
            grouping=dataclasses.replace(x.grouping, whole_groups=False),
        )
        if x.front and x.front[0] not in gated
        else x
        for x in placements
    ]


def _gives_output(placement, analysis):
    """Whether a layer without a gate gives the logits. Dense layers that give
    the logits are not reported."""
    node, rule = placement.node, analysis.rules.get(placement.node)
    if node is None or placement.gated or not rule.prunable:
        return False
    return rule.only_hidden and analysis.becomes_output(node.output)


def _place(node, analysis, placements):
    value = node.output
    norm = following_norm(node, analysis)
    if norm is not None:
        value = norm.output
    value = _in_front_of_scaling(value, analysis)
    reason = _obstacle(value, analysis)
    # The gate behind a layer may be that of the one in front.
    front_gates = [x for x in placements if x.gated or reason is not None]
    tied = analysis.rules[node].ties_channels
    follows = tied and _follows_gates(node, analysis, front_gates)
    if reason is None and not follows:
        return Placement(node.name, node, gated=True)
    grouping = front = None
    if not reason:
        grouping, reader = _grouping(node, value, analysis)
        behind = reader is not None and analysis.rules[reader].prunable
        if behind and grouping.whole_groups:
            reason = f"its channels are those of {reader.name!r}, in groups"
            front = reader, value
    if follows:
        reason = "its channels follow those of its input"
    return Placement(
        node.name,
        node,
        None if reason else value,
        reason,
        grouping=grouping,
        front=front,
    )


def _in_front_of_scaling(value, analysis):
    """The tensor behind layers that shift closed channels, if it is scaled
    then, maybe behind its gate; otherwise the same tensor.

    A depthwise convolution and a normalization make a constant of a channel
    that is closed in front of them. Squeeze-and-excitation would multiply it by
    a factor of every sample, and no channel behind it would be closed.
    """
    place, shifts = value, False
    size = analysis.channels[value].size
    while True:
        gated = [x for x in place.consumers if analysis.rules[x].gate(x)]
        behind = gated[0].output if gated else place
        if any(_is_scaled(behind, x, analysis) for x in behind.consumers):
            return place if shifts else value
        if gated or len(place.consumers) != 1:
            return value
        (reader,) = place.consumers
        alone = len(reader.inputs) == len(reader.outputs) == 1
        same = analysis.channels[reader.output].size == size
        if not (alone and same and analysis.rules[reader].ties_channels):
            return value
        shifts = shifts or bool(getattr(reader.op, "weights", ()))
        place = reader.output


def _is_scaled(value, reader, analysis):
    """Whether a layer multiplies the channels of a tensor by those of another
    one that has a single number for each."""
    scales = analysis.rules[reader].only_scales
    others = [x for x in reader.inputs if x is not value]
    return (
        bool(others)
        and not scales(value, reader)
        and any(scales(x, reader) for x in others)
    )


def _grouping(node, value, analysis):
    """How the channels of a layer share factors, and the layer that reads them
    in groups, if that is another one; a pair of None if they share none."""
    rule = analysis.rules[node]
    if rule.shares_factors:
        return rule.grouping(node), None
    found, stack = {}, [value]
    while stack:
        tensor = stack.pop()
        for reader in tensor.consumers:
            rule = analysis.rules[reader]
            if rule.shares_factors:
                found[rule.grouping(reader)] = reader
            elif rule.passes_channels and len(reader.inputs) == 1:
                stack.extend(reader.outputs)
            else:
                return None, None
        if tensor in analysis.graph.outputs:
            return None, None
    grouping, reader = next(iter(found.items()), (None, None))
    if len(found) != 1 or grouping is None:
        return None, None
    return grouping, reader


def _obstacle(value, analysis):
    """Why a gate on this tensor could remove nothing: an empty string if it
    could, None if the tensor has a gate already."""
    if analysis.channels[value].axis is None:
        return "which of its axes is that of the channels is unknown"
    if _becomes_output(value, analysis):
        return "its channels are the model's output"
    passed, scaled = [value], []
    for tensor in passed:  # It grows.
        for reader in tensor.consumers:
            rule = analysis.rules[reader]
            if rule.gate(reader) is not None:
                return None
            if rule.reason and not rule.restores:
                return (
                    f"{reader.name!r} needs all of its channels: {rule.reason}"
                )
            if group := _grouped_by(reader, analysis):
                return f"its channels are those of {group!r}, in groups"
            if rule.only_scales(tensor, reader):
                scaled.append((reader, tensor))
            if rule.passes_channels:
                passed.extend(reader.outputs)
    for reader, tensor in scaled:
        # A tensor may be scaled by factors that are made of it.
        if not any(x in passed for x in reader.inputs if x is not tensor):
            return f"its channels follow those it scales in {reader.name!r}"
    return ""


def _grouped_by(node, analysis):
    """Name of the node that makes groups of the channels, which is this one or
    reads what it splits; None if there is none."""
    if analysis.rules[node].groups_channels:
        return node.name
    if type(node.op).__name__ not in ("Split", "GetItem"):
        return None
    readers = [x for value in node.outputs for x in value.consumers]
    groups = [x.name for x in readers if analysis.rules[x].groups_channels]
    return groups[0] if groups and len(groups) == len(readers) else None


def _becomes_output(value, analysis):
    """Whether an output of the model is made of nothing but these channels:
    moved, cut out, or with others beside them, but not added to them."""
    stack = [value]
    while stack:
        tensor = stack.pop()
        if tensor in analysis.graph.outputs:
            return True
        for reader in tensor.consumers:
            rule = analysis.rules[reader]
            if rule.gate(reader) is not None:
                continue
            moves = rule.moves_channels and not rule.unites_channels
            if rule.passes_channels or moves:
                stack.extend(reader.outputs)
    return False


def _follows_gates(node, analysis, placements):
    """Whether a depthwise convolution reads the channels of layers with gates:
    these gates close its channels, too, if nothing else writes them."""
    gated = {x.node for x in placements if x.value is not None or x.gated}
    stack, seen = [node.inputs[0]], set()
    while stack:
        value = stack.pop()
        producer, rule = value.producer, analysis.rules.get(value.producer)
        if value in seen or producer in gated:
            continue
        seen.add(value)
        if rule is None or rule.mixes_channels:
            return False
        stack += [
            x for x in producer.inputs if not rule.only_scales(x, producer)
        ]
    return True


def regular_placements(analysis, placements):
    """Placements under regular connectivity: a gate that the writers of a
    group share is useful only if it closes all of them."""
    # Those that replace others have to be useful, too.
    for _ in range(2):
        placements = _with_fronts(_useful(analysis, placements))
    return placements


def _useful(analysis, placements):
    """Placements without the gates that would not close all of a stream."""
    groups = ResidualGroups(analysis)
    # The gates in front of these close their channels.
    moving = {
        node
        for node, rule in analysis.rules.items()
        if rule.moves_channels and not rule.unites_channels
    }
    closed = {
        x.node
        for x in placements
        if x.axis is None and (x.value is not None or x.gated)
    }
    sources = groups.sources()
    checked = []
    for x in placements:
        if x.value is not None and x.axis is None:
            writers = sources[groups.of(x.value)]
            free = [x for x in writers if x not in closed | moving]
            if free:
                name = repr(free[0].name) if free[0] else "the model's input"
                reason = f"{name} writes the same stream without a gate"
                x = dataclasses.replace(x, value=None, reason=reason)
        checked.append(x)
    return checked


def _has_kernel(op):
    """Whether an operation is a convolution or a dense layer."""
    convolves = "Conv" in type(op).__name__ and hasattr(op, "kernel_size")
    return convolves or isinstance(op, keras.layers.Dense)


def _hidden(node, rule):
    """Placements of a layer with weights that needs every channel, and of the
    layers with a kernel inside a layer without a rule."""
    if not isinstance(node.op, keras.layers.Layer):
        return []
    whole = rule.reason and not rule.restores and node.op.weights
    found = [Placement(node.name, node, reason=rule.reason)] if whole else []
    why = f"it is inside {node.name!r}, which no rule knows"
    inside = filter(_has_kernel, keras_internals.layers_inside(node.op))
    found += [Placement(f"{node.name}/{x.name}", reason=why) for x in inside]
    return found
