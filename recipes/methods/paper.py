"""BAR with the paper's control, a barrier in the loss."""

from keras_bar.callbacks import PaperSettings
from recipes.methods import bar

TITLE = "BAR, as in the paper"


def run(experiment, teacher):
    """What `BudgetRegularizer.paper` does."""
    return bar.run(experiment, teacher, strength=PaperSettings())
