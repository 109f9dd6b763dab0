"""BAR with the paper's control, a barrier in the loss."""

from keras_bar.callbacks import PaperSettings
from recipes.methods import bar

TITLE = "BAR, as in the paper"
REQUIREMENTS = ()


def run(experiment, teacher, **settings):
    """What `BudgetRegularizer.paper` does.

    Args:
        experiment: `Experiment`.
        teacher: The full network.
        **settings: Arguments of `PaperSettings`.
    """
    return bar.run(experiment, teacher, strength=PaperSettings(**settings))
