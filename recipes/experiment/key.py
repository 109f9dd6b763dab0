"""Which experiment it is: its name, and that of its folder."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class ExperimentKey:
    """One training of the table."""

    method: str
    factor: float
    seed: int
    network: str
    metric: str
    start: str

    def __str__(self):
        parts = (self.network, self.start, self.method, self.metric)
        return "-".join((*parts, f"{self.factor:g}", f"seed{self.seed}"))

    def teacher(self):
        """The full network, which serves all experiments of its seed."""
        rest = self.seed, self.network, "volume", "scratch"
        return ExperimentKey("teacher", 1, *rest)
