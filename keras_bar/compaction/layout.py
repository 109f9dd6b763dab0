"""In which order the channels of a compact network are stored.

The order of stored channels is free, and it decides what a mixed addition
costs: channels that form a run are padded, nearly for free; scattered ones
have to be moved one by one.
"""

import numpy as np


def arrange(flow, numbers):
    """Chooses the stored channels of every tensor, in their order.

    Args:
        flow: `Flow` of the hard-pruned network.
        numbers: Its `Numbers`.

    Returns:
        Dict from `Value` to an integer array.
    """
    return {
        value: np.flatnonzero(numbers.live[value])
        for value in flow.graph.values
    }
