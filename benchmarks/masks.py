"""Random masks, like the result of pruning."""

import numpy as np

from keras_bar.layers import HardConcreteGate


def close_at_random(model, keep, exactly=True, seed=0, align=1):
    """Closes random channels of every gate of a model.

    Args:
        model: Gated `keras.Model`.
        keep: Float, the share of the channels that stay open.
        exactly: Boolean, whether every gate keeps exactly that share. If
            False, each channel stays with that probability, at least one per
            gate.
        seed: Integer.
        align: Integer; widths are rounded to its multiples, at least one.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if not isinstance(layer, HardConcreteGate):
            continue
        size = layer.channels
        order = rng.permutation(size)
        kept = round(keep * size) if exactly else rng.binomial(size, keep)
        kept = min(max(round(kept / align), 1) * align, size)
        mask = np.zeros(size, bool)
        mask[order[:kept]] = True
        layer.set_alive(mask)
