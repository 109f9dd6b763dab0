"""The phases of every training, from `phases.toml`."""

import dataclasses
import pathlib
import tomllib

# Dict from data sets to kinds of methods to their phases, as plain data.
TABLE = tomllib.loads(
    pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8")
)


@dataclasses.dataclass(frozen=True)
class Phases:
    """How long a training is, in epochs, as `phases.toml` explains them."""

    prune: int = 0
    high: int = 0
    low: int = 0
    shared: bool = False
    anew: bool = False

    @property
    def train(self):
        """Epochs once it is decided which channels stay."""
        return self.high + self.low

    @property
    def total(self):
        return self.prune + self.train

    def scaled(self, factor):
        """Phases that are `factor` times as long, at least an epoch each."""
        epochs = {x: getattr(self, x) for x in ("prune", "high", "low")}
        scaled = {x: max(1, round(factor * y)) for x, y in epochs.items() if y}
        return dataclasses.replace(self, **scaled)

    def of_round(self, i, rounds):
        """The phases of one of several rounds."""
        if not self.shared:
            return self
        total = self.train
        epochs = max(1, total * (i + 1) // rounds - total * i // rounds)
        low = round(epochs * self.low / total)
        if self.low and epochs > 1:
            low = max(1, low)
        return Phases(high=epochs - low, low=low)


def load(dataset, kind, scale=1.0):
    """The `Phases` of a kind of method on a data set, `scale` times as long."""
    return Phases(**TABLE[dataset][kind]).scaled(scale)
