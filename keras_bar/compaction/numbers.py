"""The channel flow in numbers, once it is known which gates are alive."""

import numpy as np

from keras_bar.graph.algebra import evaluate


class Numbers:
    """Alive and live channels, and the constants that dead ones hold.

    Args:
        flow: `Flow` of the graph.
        masks: Dict from gate to booleans `(channels,)`.

    Attributes:
        alive: Dict from `Value` to booleans `(channels,)`: which channels vary
            with the input. `(1,)` where the channel axis is unknown.
        live: The same for channels that are alive and needed.
        constants: Dict from `Value` to floats `(channels,)`, 0 where alive.
    """

    def __init__(self, flow, masks):
        self.flow = flow
        values = flow.graph.values
        read = {value: flow.channels[value].alive for value in values}
        live = {value: flow.live(value) for value in values}
        results = evaluate([*read.values(), *live.values()], masks)
        self.alive = {v: self._mask(v, results[x]) for v, x in read.items()}
        self.live = {v: self._mask(v, results[x]) for v, x in live.items()}
        self.constants = {}
        for value in flow.graph.inputs:
            self.constants[value] = np.zeros(len(self.alive[value]))
        for node in flow.graph.nodes:
            self.update(node)

    def _mask(self, value, numbers):
        size = self.flow.channels[value].size or 1
        return np.broadcast_to(numbers > 0.5, (size,))

    def update(self, node):
        """Computes the constants in the outputs of a node anew."""
        for value in node.outputs:
            alive = self.alive[value]
            constants = np.zeros(len(alive))
            if not alive.all():
                computed = self.flow.rules[node].constants(node, self)
                constants = np.where(alive, 0.0, computed)
            self.constants[value] = constants
