"""WM that compares the filters of all layers."""

from recipes.methods import wm

TITLE = "WM (global)"
REQUIREMENTS = ()


def run(experiment, teacher):
    return wm.run(experiment, teacher, "global")
