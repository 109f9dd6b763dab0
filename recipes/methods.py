"""How the networks of a cell are made: BAR, and what it is compared with."""

import dataclasses
import functools
import math

import keras

import keras_bar
from keras_bar import baselines
from keras_bar.reports import runs
from recipes import figures
from recipes import hosts
from recipes import searching
from recipes import tables
from recipes.work import train_full

# Training pictures on which ID observes activations.
DECOMPOSED = 500
# Steps in which gates of LZR and IB get anywhere at their own pace, half of the
# paper's; and how much faster they move at most where there are fewer.
ENOUGH, FASTEST = 31_250, 10.0
# The seed whose trainings tell the strength of a penalty.
SEARCHED = 0


def bar(work, teacher, metric=None, budget=None, **settings):
    """BAR with the defaults of `BudgetRegularizer`; then fine-tuning.

    Args:
        work: `Work`.
        teacher: The full network.
        metric, budget: What is limited, and to what fraction; by default the
            cell's metric, and what its factor leaves.
        **settings: Further arguments of `BudgetRegularizer`.
    """
    metric, budget = metric or work.cell.metric, budget or 1 / work.cell.factor
    regularizer = keras_bar.callbacks.BudgetRegularizer(
        budget, metric, **settings
    )
    gated = work.run.once("gated", lambda: prune(work, teacher, regularizer))
    cost = keras_bar.measure_cost(gated)
    history = work.run.history("prune")
    if hosts.is_chief():
        full = keras_bar.measure_cost(teacher)
        label = f"pruned to 1/{1 / budget:.4g} of the {metric}"
        figures.draw_one(work.run, full, cost, metric, label)
    small = keras_bar.compact(gated)
    row = tables.pruning_row(history, metric, gated, work.data)
    row |= {
        f"regular_{x}": getattr(cost.regular, x) for x in ("volume", "flops")
    }
    return work.finetune(teacher, small), row


def prune(work, teacher, regularizer):
    student = keras_bar.gate(
        work.source(teacher),
        connectivity=work.manner.connectivity,
        seed=work.cell.seed,
    )
    epochs = work.phases("gates").prune
    callbacks = [regularizer]
    if hosts.is_chief():
        path = work.run.folder / runs.GATES
        callbacks.append(keras_bar.callbacks.GateJournal(path))
    return work.distill("prune", teacher, student, epochs, callbacks=callbacks)


def bar_flops(work, teacher):
    """BAR that is given the FLOPs of the narrowed network as its budget, the
    supplement's "F-trained". How pruning went is told in FLOPs, too."""
    budget = work.cell.factor**-2
    small, row = bar(work, teacher, "flops", budget)
    return small, row | {"budget_metric": "flops"}


def divisor(cell):
    """Of all widths, such that narrowing meets the factor: the volume grows
    with them, FLOPs and params with their square."""
    if cell.metric == "volume":
        return cell.factor
    return math.sqrt(cell.factor)


def narrow(work, teacher):
    """The same network, uniformly narrower, from scratch."""
    small = work.build(divisor(work.cell))
    plan = work.phases("gates")
    work.distill("train", teacher, small, plan.total, plan.low)
    return small, {}


def halve(work, teacher, criterion, scope="layer"):
    """Half of the volume at a time, or what comes near it where the factor is
    no power of 2, and after each a training at the high and the low rate
    (supplement, section 3.2).

    Args:
        work: `Work`.
        teacher: The full network.
        criterion: Function of the work that returns a criterion of
            `keras_bar.baselines`.
        scope: `"layer"` or `"global"`, as in `keras_bar.baselines.prune`.
    """
    cell, plan = work.cell, work.phases("halving")
    steps = baselines.halvings(1 / cell.factor)
    place = work
    if not plan.shared:  # The first rounds are the same for all factors.
        factor = round(1 / steps[0], 6)
        place = work.other(method=f"{cell.method}-halved", factor=factor)

    def train(name, small, step, phases):
        small = baselines.prune(
            small, criterion(work), step, cell.metric, scope=scope
        )
        return place.distill(name, teacher, small, phases.train, phases.low)

    small = halved_first(work) if plan.anew else teacher
    for i, step in enumerate(steps):
        name, phases = f"round{i + 1}", plan.of_round(i, len(steps))
        small = place.run.once(
            name, functools.partial(train, name, small, step, phases)
        )
    return small, {}


def halved_first(work):
    """The network with which all halvings of a seed begin."""
    work = work.other(
        method="initial", factor=1, metric="volume", start="scratch"
    )
    return work.run.once(
        "initial", lambda: train_full(work, "initial", "halving")
    )


# Packages that methods need beside the others, as they are imported.
REQUIRED = {"vq": "sklearn", "id": "scipy", "id-weights": "scipy"}
CRITERIA = {
    "wm": lambda work: baselines.weight_magnitude,
    "random": lambda work: baselines.random(work.cell.seed),
    "vq": lambda work: baselines.VectorQuantization(),
    "id": lambda work: baselines.InterpolativeDecomposition(
        work.data.sample(DECOMPOSED)
    ),
    "id-weights": lambda work: baselines.InterpolativeDecomposition(),
}


@dataclasses.dataclass(frozen=True)
class Penalty:
    """A method that prunes by a penalty of constant strength.

    Attributes:
        regularizer: Function from a strength and a metric to the callback.
        strength: Where the search for the strength begins; of one that knows
            the metric, for the volume.
        near: By what factor the pruned network may miss the size aimed at.
        aim: What is aimed at, a factor on the wanted size.
        gate: The class of its gates.
        connectivity: `"mixed"` or `"regular"`, or None for what was asked for.
        phases: Kind of the phases.
        expanded: Whether the regularizer knows the metric and stops at a
            size, and the pruned network is expanded to the budget.
    """

    regularizer: object
    strength: float
    near: float = searching.NEAR
    aim: float = 1.0
    gate: type = keras_bar.layers.HardConcreteGate
    connectivity: str | None = None
    phases: str = "gates"
    expanded: bool = False


PENALTIES = {
    "lzr": Penalty(lambda x, _: baselines.L0Regularizer(x), 1e-2),
    "ib": Penalty(
        lambda x, _: baselines.InformationBottleneckRegularizer(x),
        1e-5,
        gate=keras_bar.layers.GaussianGate,
    ),
    "morphnet": Penalty(
        baselines.MorphNetRegularizer,
        6.4e-4,
        # It stops when it is within the budget, and is expanded to it; with
        # less than half of it left it went too fast.
        near=1.001 * math.sqrt(2),
        aim=1 / math.sqrt(2),
        gate=keras_bar.layers.MarkerGate,
        connectivity="regular",
        phases="morphnet",
        expanded=True,
    ),
}


def by_penalty(work, teacher, method):
    """LZR, IB, MorphNet: there is no budget, so the strength of the penalty
    that leads to it is searched for, with one seed. MorphNet is then expanded
    to it."""
    penalty, cell = PENALTIES[method], work.cell
    strength = find_strength(work, method)
    gated = shrink(work, teacher, method, strength)
    small = keras_bar.compact(gated)
    row = {
        "strength": strength,
        "pruned": work.data.accuracy(small),
    }
    spare = 0
    if penalty.expanded:
        spare = epochs_left(work, method, strength)
        keras.utils.set_random_seed(cell.seed)  # Of the new weights.
        full, left = (
            getattr(keras_bar.measure_cost(x), cell.metric)
            for x in (teacher, small)
        )
        row["shrunk"] = left / full
        small = baselines.expand(small, full / cell.factor, cell.metric)
    return work.finetune(teacher, small, penalty.phases, spare), row


def find_strength(work, method):
    """Searches for the strength that leads to the cell's factor."""
    work = work.other(seed=SEARCHED)
    teacher = work.teacher()
    metric, cost = work.cell.metric, keras_bar.measure_cost(teacher)
    full = getattr(cost, metric)

    def attempt(strength):
        gated = shrink(work, teacher, method, strength)
        return getattr(keras_bar.measure_cost(gated), metric) / full

    penalty, run = PENALTIES[method], shrinking(work, method).run
    target = penalty.aim / work.cell.factor
    first = penalty.strength
    if penalty.expanded:  # It is per unit of the metric.
        first = float(f"{first * cost.volume / full:.3g}")
    return searching.recorded(
        # One that looked for something else is none.
        run.folder / f"search-{metric}-{target:.4g}-{penalty.near:g}.json",
        attempt,
        target,
        first,
        penalty.near,
        known=[float(x) for x in run.done("gated-")],
    )


def shrink(work, teacher, method, strength):
    """The network, still of full size, that a penalty has pruned."""
    work, penalty = shrinking(work, method), PENALTIES[method]
    epochs = work.phases(penalty.phases).prune
    rate, stop = {}, {}
    if penalty.expanded:
        stop["until"] = 1 / work.cell.factor
    else:
        rate["rate"] = gate_rate(epochs * work.data.steps)

    def train():
        keras.utils.set_random_seed(work.cell.seed)
        return work.distill(
            f"prune-{strength:g}",
            teacher,
            keras_bar.gate(
                work.source(teacher),
                connectivity=penalty.connectivity or work.manner.connectivity,
                seed=work.cell.seed,
                layer=functools.partial(penalty.gate, **rate),
            ),
            epochs,
            callbacks=[penalty.regularizer(strength, work.cell.metric, **stop)],
        )

    return work.run.once(f"gated-{strength:g}", train)


def epochs_left(work, method, strength):
    """Epochs of pruning that were not needed: those of the training of what
    is left become more, so that all methods train for as long."""
    history = shrinking(work, method).run.history(f"prune-{strength:g}")
    plan = work.phases(PENALTIES[method].phases)
    return plan.prune - len(history["loss"])


def gate_rate(steps):
    """How much faster gates move that must find their place in few steps. Adam
    moves them by 1e-3 in each, and IB's begin 9 away from where they close."""
    return min(max(ENOUGH / steps, 1.0), FASTEST)


def shrinking(work, method):
    """Where the trainings with a penalty are kept. Those that know nothing of
    the budget are the same for all factors and metrics."""
    metric, factor = work.cell.metric, work.cell.factor
    if not PENALTIES[method].expanded:
        metric, factor = "volume", 1
    return work.other(method=f"{method}-shrunk", factor=factor, metric=metric)


# Other settings of `BudgetRegularizer`: what docs/small_budgets.md shows.
PAPER = {"strength": 1e-5}
ABLATIONS = {
    "paper": PAPER,
    "paper-strong": {**PAPER, "strength": 1e-3},
    "never-decided": {"indecision": (0.12, 0.12)},
    "half-open": {"openness": 0.0},
    "no-price": {"price_exponent": 0.0},
    "plain-price": {"price_exponent": 1.0},
    "double-price": {"price_exponent": 2.0},
    "no-rest": {"steps": 1.0},
    "line": {"hardness": 0.0},
}
METHODS = {
    "bar": bar,
    "bar-flops": bar_flops,
    "narrow": narrow,
    **{
        name: functools.partial(halve, criterion=criterion)
        for name, criterion in CRITERIA.items()
    },
    "wm-global": functools.partial(
        halve, criterion=CRITERIA["wm"], scope="global"
    ),
    **{name: functools.partial(by_penalty, method=name) for name in PENALTIES},
    **{
        name: functools.partial(bar, **settings)
        for name, settings in ABLATIONS.items()
    },
}
