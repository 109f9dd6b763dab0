"""Random, WM, VQ, ID: half of the volume at a time.

Or what comes near a half where the factor is no power of 2; after each round a
training at the high and the low rate (supplement, section 3.2).
"""

import functools

from keras_bar import baselines


def by(make_criterion, scope="layer"):
    """The `run` of a method that prunes in rounds by a criterion of
    `keras_bar.baselines`, which a function makes for an experiment."""

    def run(experiment, teacher):
        key, plan = experiment.key, experiment.phases("halving")
        steps = baselines.halvings(1 / key.factor)
        place = experiment
        if not plan.shared:  # The first rounds are the same for all factors.
            method, factor = f"{key.method}-halved", round(1 / steps[0], 6)
            place = experiment.other(method=method, factor=factor)

        def train(name, small, step, phases):
            criterion = make_criterion(experiment)
            small = baselines.prune(
                small, criterion, step, key.metric, scope=scope
            )
            return place.distill(name, teacher, small, phases.train, phases.low)

        small = first_network(experiment) if plan.anew else teacher
        for i, step in enumerate(steps):
            name, phases = f"round{i + 1}", plan.of_round(i, len(steps))
            make = functools.partial(train, name, small, step, phases)
            small = place.once(name, make)
        return small, {}

    return run


def first_network(experiment):
    """The network with which all halvings of a seed begin."""
    first = experiment.other(
        method="initial", factor=1, metric="volume", start="scratch"
    )
    return first.once("initial", lambda: first.train_full("initial", "halving"))
