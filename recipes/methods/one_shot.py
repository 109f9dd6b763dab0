"""One cut: balanced shares of the layers, refitted to the full network."""

import keras_bar

TITLE = "one cut"
SAMPLES = 512


def run(experiment, teacher):
    key, plan = experiment.key, experiment.phases("gates")
    images = experiment.data.sample(SAMPLES)
    small = keras_bar.prune(teacher, 1 / key.factor, key.metric, images)
    row = {"pruned": experiment.data.accuracy(small)}
    experiment.distill("train", teacher, small, plan.total, plan.low)
    return small, row
