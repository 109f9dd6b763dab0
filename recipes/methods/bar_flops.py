"""BAR whose budget is the FLOPs of the narrowed network: "F-trained"."""

from recipes.methods import bar

TITLE = "BAR (F-trained)"


def run(experiment, teacher):
    budget = experiment.key.factor**-2
    small, row = bar.run(experiment, teacher, "flops", budget)
    return small, row | {"budget_metric": "flops"}
