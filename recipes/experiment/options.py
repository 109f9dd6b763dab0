"""The command line of all recipes. Imports nothing that takes seconds."""

import argparse
import fractions
import math
import os
import pathlib
import tomllib

from recipes import methods
from recipes.data.registry import DATASETS
from recipes.experiment.key import ExperimentKey

TABLE = tomllib.loads(
    pathlib.Path(__file__).with_suffix(".toml").read_text("utf-8")
)
# Closes the description of every recipe that compares methods.
OUTPUT = """
Every experiment is a folder in the output folder, with `report.json`, the
compact network, figures, and the logs of every epoch, for TensorBoard, too. All
that are found have a row in `results.csv`. Those like the ones asked for are in
`tables.md` and in the figures `accuracy`, `volume` and `flops`, beside the
numbers of the supplement's section 6; `channels`, its Figure 1, and
`flops_of_layers` show BAR's networks layer by layer. What is done is not done
again, and an interrupted experiment resumes after its last epoch.
"""
KERASTUNER = [
    f"KERASTUNER_{x}" for x in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT")
]


def number(kind, expected, allowed):
    """A `type` of an argument: a number that a function allows."""

    def convert(text):
        try:
            if allowed(value := kind(text)):
                return value
        except (ValueError, ArithmeticError):
            pass
        raise argparse.ArgumentTypeError(
            f"Invalid value. Expected {expected}. Received: {text}"
        )

    return convert


TYPES = {
    "count": number(int, "an integer of 1 or more", lambda x: x >= 1),
    "seed": number(int, "an integer of 0 or more", lambda x: x >= 0),
    "epochs": number(int, "at least 4", lambda x: x >= 4),
    "scale": number(float, "a number in (0, 100)", lambda x: 0 < x < 100),
    "factor": number(
        float, "finite factors of 1 or more", lambda x: 1 <= x < math.inf
    ),
    "budget": number(
        lambda text: float(fractions.Fraction(text)),
        "a fraction of the full cost in (0, 1], such as 1/8",
        lambda x: 0 < x <= 1,
    ),
    "path": pathlib.Path,
}


def make_parser(
    description,
    groups=(),
    datasets=tuple(DATASETS),
    choices=(*methods.NAMES, *methods.ABLATIONS),
    compared=(),
    output="a folder of its name in runs",
):
    """An `ArgumentParser` of groups of `options.toml`, for some data sets and
    methods; it shows a module's docstring."""
    parser = argparse.ArgumentParser(
        description=description + OUTPUT * ("grid" in groups),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    known = {name: DATASETS[name] for name in datasets}
    told = {
        "methods": ", ".join(choices),
        "compared": " ".join(compared),
        "output": output,
        "networks": "; ".join(
            f"{x}: {', '.join(y.networks)}" for x, y in known.items()
        ),
        "counts": ", ".join(
            f"{y.count or 'all'} of {x}" for x, y in known.items()
        ),
    }
    named = {"methods": choices, "datasets": list(DATASETS)}
    for name, given in [x for group in groups for x in TABLE[group].items()]:
        option = {**given, "help": given["help"].format(**told)}
        flags = option.pop("flags", [f"--{name}"])
        if "type" in option:
            option["type"] = TYPES[option["type"]]
        if option.get("choices") in ("methods", "datasets"):
            option["choices"] = named[option["choices"]]
        parser.add_argument(*flags, **option)
    defaults = {"methods": list(compared), "summary": False, "export": None}
    parser.set_defaults(**defaults)
    return parser


def check(parser, settings, shared=False):
    """Fills in what was not asked for; exits with code 2 and a line of text
    where something is wrong, as far as that is seen without Keras. `shared`:
    whether all data sets have folders in the output folder."""
    settings.fail = parser.error
    known = DATASETS[settings.dataset]
    for name in ("network", "start", "scale"):
        setattr(settings, name, getattr(settings, name) or getattr(known, name))
    settings.images = settings.images or known.count
    settings.output = settings.output or pathlib.Path("runs", settings.dataset)
    settings.folders = {settings.dataset: settings.output}
    if shared:
        settings.folders = {x: settings.output / x for x in DATASETS}
    if settings.teachers:
        place = settings.teachers / (settings.dataset if shared else "")
        settings.teachers = place.resolve()
    for is_wrong, message in contradictions(settings, known):
        if is_wrong:
            parser.error(message)
    try:
        # The first of several hosts prepares the data for the others.
        if settings.strategy != "multiworker":
            known.check(settings.data, settings.skip_broken)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return settings


def contradictions(settings, known):
    """Pairs: whether settings contradict each other, and what to say then."""
    factors, images = settings.factors, settings.images
    yield (
        len({f"{x:g}" for x in factors}) < len(factors),
        "Some factors are the same, to six digits. Expected different ones. "
        f"Received: --factors {factors}",
    )
    yield (
        images is not None and settings.batch_size > images,
        "The images do not fill one batch. Expected at least as many as "
        f"--batch-size {settings.batch_size}. Received: --images {images}",
    )
    yield (
        settings.network not in known.networks,
        f"There is no such network for {known.title}. Expected one of "
        f"{', '.join(known.networks)}. Received: --network {settings.network}",
    )
    lacking = [x for x in files_of_teachers(settings) if not x.exists()]
    yield (
        bool(lacking),
        "There is no trained network. Expected --teachers FOLDER, the output "
        "of this recipe for the same data set, network and seeds. "
        f"Received: no {', '.join(map(str, lacking))}",
    )
    yield (
        "bar-flops" in settings.methods and settings.metric != "volume",
        "The method 'bar-flops' stands beside methods with a budget of volume. "
        "Expected --metric volume, or the method 'bar'. "
        f"Received: --metric {settings.metric}",
    )


def files_of_teachers(settings):
    """Paths of the full networks that were trained before."""
    if settings.teachers is None:
        return []
    rest = settings.network, settings.metric, settings.start
    keys = [ExperimentKey("", 1, x, *rest) for x in settings.seeds]
    return [settings.teachers / f"{x.teacher()}/teacher.keras" for x in keys]


def check_sweep(parser, settings):
    """As `check`, for a sweep; its `role` is the name of a worker, or None
    where no other process hands out the trials."""
    given = [x for x in KERASTUNER if x in os.environ]
    if len(given) not in (0, len(KERASTUNER)):
        parser.error(
            "The machines of the sweep are unknown. Expected all of "
            f"{', '.join(KERASTUNER)}, or none of them. Received: {given}"
        )
    if settings.strategy == "multiworker":
        parser.error(
            "A trial is for one host. Expected --strategy auto, none or "
            "mirrored, and the variables of KerasTuner for several hosts. "
            "Received: --strategy multiworker"
        )
    name = os.environ.get(KERASTUNER[0], "chief")
    settings.role = None if "chief" in name else name
    settings.methods, settings.seeds = ["bar"], [settings.seed]
    default = pathlib.Path("runs", f"sensitivity-{settings.dataset}")
    settings.output = settings.output or default
    return check(parser, settings)
