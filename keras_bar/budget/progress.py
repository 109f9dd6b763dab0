"""The progress of pruning."""

import dataclasses
import enum
import math


class Phase(enum.Enum):
    """The states of a pruning, in their order."""

    NOT_STARTED = "not started"  # `fit` has not begun its first epoch.
    TRACKING = "tracking"  # The control acts on the gates.
    SETTLING = "settling"  # The gates are fixed; the rest of `fit` trains.
    FINISHED = "finished"  # `fit` has ended.


@dataclasses.dataclass
class Progress:
    """The progress of pruning, counted on the host.

    Reading the variable that counts the steps holds up the next one, so it is
    read when the control's steps may be over, and not before: a batch is at
    most one step of the optimizer.

    Attributes:
        phase: `Phase`.
        steps: Steps of the optimizer in which the control acts.
        total: All steps of `fit`, those before an interruption included;
            infinite where they are unknown.
        steps_per_call: Batches that one call of the compiled step takes.
        unseen: Steps that may pass before the count has to be read again.
    """

    phase: Phase = Phase.NOT_STARTED
    steps: float = 0
    total: float = 0
    steps_per_call: int = 1
    unseen: float = 0

    @property
    def settles(self):
        """Whether `fit` goes on after the control has had its steps."""
        return self.steps < self.total

    @property
    def has_started(self):
        return self.phase is not Phase.NOT_STARTED

    def start(self, steps, total, steps_done, steps_per_call):
        """Begins, or continues, with the steps that are done."""
        self.steps, self.total = steps, total
        self.steps_per_call = steps_per_call
        self.phase = Phase.TRACKING
        self.look(steps_done)

    def look(self, steps_done):
        """Notes the number of steps that was read. Returns whether the control
        has had all of its steps."""
        self.unseen = self.steps - steps_done
        return self.unseen <= 0

    def advance(self):
        """Notes that a call of the compiled step begins."""
        self.unseen -= self.steps_per_call

    def may_settle(self):
        """Whether the number of steps has to be read."""
        tracking = self.phase is Phase.TRACKING
        return tracking and self.settles and self.unseen <= 0


def control_steps(steps, total):
    """Steps in which a control acts.

    Args:
        steps: As of `GateRegularizer`: integer, fraction of `total` or None.
        total: All steps of `fit`.
    """
    if steps is None:
        return total
    if isinstance(steps, float):
        return max(round(steps * total), 1)
    return steps


def total_steps(params, epoch, steps_done, batches_per_step):
    """All steps of the optimizer in `fit`.

    Args:
        params: Dict that Keras gives to callbacks.
        epoch: Integer, the first epoch to come.
        steps_done: Integer, steps before an interruption.
        batches_per_step: Integer, batches whose gradients are accumulated.

    Returns:
        Integer, or infinity where the number of batches is unknown.
    """
    epochs = max(params["epochs"] - epoch, 0)
    batches = params.get("steps") or math.inf
    if not epochs or math.isinf(batches):
        return steps_done + (math.inf if epochs else 0)
    return steps_done + epochs * batches // batches_per_step
