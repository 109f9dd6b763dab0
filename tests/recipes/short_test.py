"""BAR that prunes for a few hundred steps."""

import types

import pytest

from keras_bar import models
from recipes import methods
from recipes.experiment import training
from recipes.experiment.key import ExperimentKey
from recipes.methods import bar


@pytest.mark.parametrize("steps, pruning", [(312, 1), (156, 2), (10, 14)])
def test_trains_for_as_long_as_bar(steps, pruning, tmp_path, monkeypatch):
    trained = []

    def distill(self, part, teacher, student, epochs, low=0, callbacks=()):
        trained.append((part, epochs, low))
        for layer in student.layers:
            if hasattr(layer, "fix"):
                layer.fix()
        return student

    monkeypatch.setattr(training.Experiment, "distill", distill)
    monkeypatch.setattr(bar, "describe", lambda *_: {})
    data = types.SimpleNamespace(steps=steps)
    teacher = models.VGG((18, 18, 1), 100, widths=(4, 8))
    for method in ("short", "bar"):
        key = ExperimentKey(method, 2, 0, "vgg", "flops", "teacher")
        experiment = training.Experiment(
            key, "multi_fashion", data, training.TrainingOptions(), tmp_path
        )
        methods.load(method).run(experiment, teacher)
    short, usual = trained[:2], trained[2:]
    assert short == [
        ("prune", pruning, 0),
        ("finetune", 20 - pruning, usual[1][2]),
    ]
    assert sum(x[1] for x in short) == sum(x[1] for x in usual) == 20
