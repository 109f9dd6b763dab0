"""Random masks, like the result of pruning."""

import numpy as np

from keras_bar.layers import HardConcreteGate


def close_at_random(model, keep, exactly=True, seed=0):
    """Closes random channels of every gate of a model.

    Args:
        model: Gated `keras.Model`.
        keep: Float, the share of the channels that stay open.
        exactly: Boolean, whether every gate keeps exactly that share. If
            False, each channel stays with that probability, at least one per
            gate.
        seed: Integer.
    """
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        if not isinstance(layer, HardConcreteGate):
            continue
        size = layer.channels
        order = rng.permutation(size)
        kept = round(keep * size) if exactly else rng.binomial(size, keep)
        mask = np.zeros(size, bool)
        mask[order[: max(kept, 1)]] = True
        layer.set_alive(mask)
