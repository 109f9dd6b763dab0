"""The same network, uniformly narrower, from scratch."""

import math

TITLE = "narrowed"


def run(experiment, teacher):
    key, plan = experiment.key, experiment.phases("gates")
    # The volume grows with the widths, FLOPs and params with their square.
    volume = key.metric == "volume"
    small = experiment.build(key.factor if volume else math.sqrt(key.factor))
    experiment.distill("train", teacher, small, plan.total, plan.low)
    return small, {}
