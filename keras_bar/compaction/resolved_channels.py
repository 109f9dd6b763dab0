"""The channel analysis in numbers, for given alive channels of the gates."""

import numpy as np

from keras_bar.analysis.evaluation import evaluate


class ResolvedChannels:
    """Alive and live channels, and the constants that dead ones hold.

    Args:
        analysis: `ChannelAnalysis` of the graph.
        masks: Dict from gate to booleans `(channels,)`.

    Attributes:
        alive: Dict from `Value` to booleans `(channels,)`: which channels vary
            with the input. `(1,)` where the channel axis is unknown.
        live: The same for channels that are alive and needed.
        constants: Dict from `Value` to floats `(channels,)`, 0 where alive.
            Behind a layer with a kernel that sees a constant end at a border,
            they include its mean contribution, as in hard pruning.
    """

    def __init__(self, analysis, masks):
        self.analysis = analysis
        self._masks = masks
        values = analysis.graph.values
        alive = {value: analysis.channels[value].alive for value in values}
        live = {value: analysis.live(value) for value in values}
        results = evaluate([*alive.values(), *live.values()], masks)
        self.alive = {v: self._mask(v, results[x]) for v, x in alive.items()}
        self.live = {v: self._mask(v, results[x]) for v, x in live.items()}
        self.constants = {}
        for value in values:
            self.constants[value] = self._constants(value)

    def holds(self, expression):
        """Whether an expression is true, booleans `(size,)`."""
        return evaluate([expression], self._masks)[expression] > 0.5

    def widths(self, value):
        """The widths that a tensor of heads keeps, integers."""
        if width := self.analysis.widths.get(value):
            alive = evaluate([width.alive], self._masks)[width.alive]
            return np.flatnonzero(np.broadcast_to(alive > 0.5, width.size))
        return np.arange(value.shape[-1])

    def _mask(self, value, resolved):
        size = self.analysis.channels[value].size or 1
        return np.broadcast_to(resolved > 0.5, (size,))

    def _constants(self, value):
        alive = self.alive[value]
        if alive.all():
            return np.zeros(len(alive))
        node = value.producer
        rule = self.analysis.rules[node]
        return np.where(alive, 0.0, rule.constants_of(value, node, self))
