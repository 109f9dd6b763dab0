"""Closes channels until the widths of a gated model are multiples."""

from keras_bar.analysis.rules.base import to_numpy
from keras_bar.budget import alignment
from keras_bar.compaction.copying import copied
from keras_bar.layers import HardConcreteGate


def aligned_copy(model, graph, masks, align):
    """A copy of a gated model with fixed gates of aligned widths.

    Args:
        model: Gated `keras.Model`. It is not changed.
        graph: Its `Graph`.
        masks: Dict from gate to its alive channels, booleans `(channels,)`.
        align: Integer; the weakest channels are closed until the number of
            open ones is its multiple.

    Returns:
        `keras.Model`, with the attribute `aligned_widths`: dict from the name
        of a gate to its numbers of open channels before and after, where they
        differ.
    """
    scores = {gate: _scores(gate) for gate in masks}
    aligned = alignment.round_down(scores, masks, align)
    copy = copied(graph, lambda gate, new: new.set_alive(aligned[gate]))
    copy.ungated_reasons = getattr(model, "ungated_reasons", {})
    widths = {
        x.name: (masks[x].sum() * x.shared_by, aligned[x].sum() * x.shared_by)
        for x in masks
    }
    copy.aligned_widths = {
        name: (int(before), int(after))
        for name, (before, after) in widths.items()
        if before != after
    }
    return copy


def _scores(gate):
    """How strong the channels of a gate are, floats `(channels,)`."""
    if isinstance(gate, HardConcreteGate):
        return to_numpy(gate.location())
    return to_numpy(gate.deterministic())
