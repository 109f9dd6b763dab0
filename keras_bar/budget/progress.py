"""The progress of pruning."""

import dataclasses
import enum
import math


class Phase(enum.Enum):
    """The phases of pruning, in order."""

    NOT_STARTED = "not started"  # `fit` has not begun its first epoch.
    TRACKING = "tracking"  # The control acts on the gates.
    SETTLING = "settling"  # The gates are fixed; the rest of `fit` trains.
    FINISHED = "finished"  # `fit` has ended.


@dataclasses.dataclass
class Progress:
    """The progress of pruning, counted on the host.

    Reading the variable that counts the steps delays the next step. It is
    therefore read only when the control's steps may be over: a batch is at most
    one step of the optimizer.

    Attributes:
        phase: `Phase`.
        steps: Steps of the optimizer in which the control acts.
        total: All steps of `fit`, including those before an interruption;
            infinite if unknown.
        steps_per_call: Batches per call of the compiled step.
        unread: Steps that may pass before the counter has to be read again.
    """

    phase: Phase = Phase.NOT_STARTED
    steps: float = 0
    total: float = 0
    steps_per_call: int = 1
    unread: float = 0

    @property
    def settles(self):
        """Whether `fit` continues after the control's last step."""
        return self.steps < self.total

    @property
    def has_started(self):
        return self.phase is not Phase.NOT_STARTED

    def start(self, steps, total, steps_done, steps_per_call):
        """Starts, or resumes after `steps_done` steps."""
        self.steps, self.total = steps, total
        self.steps_per_call = steps_per_call
        self.phase = Phase.TRACKING
        self.update(steps_done)

    def update(self, steps_done):
        """Records the number of steps that was read. Returns whether the
        control has had all of its steps."""
        self.unread = self.steps - steps_done
        return self.unread <= 0

    def advance(self):
        """Records the start of a call of the compiled step."""
        self.unread -= self.steps_per_call

    def may_settle(self):
        """Whether the counter of steps has to be read."""
        tracking = self.phase is Phase.TRACKING
        return tracking and self.settles and self.unread <= 0


def control_steps(steps, total):
    """Steps in which a control acts.

    Args:
        steps: As in `GateRegularizer`: integer, fraction of `total` or None.
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
        params: Dict that Keras passes to callbacks.
        epoch: Integer, the next epoch.
        steps_done: Integer, steps before an interruption.
        batches_per_step: Integer, batches whose gradients are accumulated.

    Returns:
        Integer, or infinity if the number of batches is unknown.
    """
    epochs = max(params["epochs"] - epoch, 0)
    batches = params.get("steps") or math.inf
    if not epochs or math.isinf(batches):
        return steps_done + (math.inf if epochs else 0)
    return steps_done + epochs * batches // batches_per_step
