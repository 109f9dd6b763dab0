"""Closes channels until the widths of a gated model are multiples."""

import keras

from keras_bar.analysis.rules.base import to_numpy
from keras_bar.budget import alignment
from keras_bar.layers import HardConcreteGate


def aligned_copy(model, masks, align):
    """A copy of a gated model with fixed gates of aligned widths.

    Args:
        model: Gated `keras.Model`. It is not changed.
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
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.ungated_reasons = getattr(model, "ungated_reasons", {})
    copy.aligned_widths = {}
    for gate, mask in aligned.items():
        copy.get_layer(gate.name).set_alive(mask)
        widths = int(masks[gate].sum()), int(mask.sum())
        if widths[0] != widths[1]:
            copy.aligned_widths[gate.name] = widths
    return copy


def _scores(gate):
    """How strong the channels of a gate are, floats `(channels,)`."""
    if isinstance(gate, HardConcreteGate):
        return to_numpy(gate.location())
    return to_numpy(gate.deterministic())
