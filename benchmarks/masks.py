"""Random masks: gates as a pruning might have left them."""

import numpy as np

from keras_bar.layers import HardConcreteGate


def close_at_random(model, keep, exactly=True, seed=0):
    """Closes random channels of every gate of a model.

    Args:
        model: Gated `keras.Model`.
        keep: Float, the share of the channels that stay open.
        exactly: Boolean; whether every gate keeps just that share, or each
            channel stays with that probability, and at least one per gate.
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
