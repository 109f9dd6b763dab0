"""The methods of the comparison, a file each.

A method has a `TITLE`, the supplement's; `run(experiment, teacher)`, which
returns the pruned network and a dict of what else to report; and `REQUIREMENTS`
if it needs packages beside the others. One of your own is a file here and its
name in `NAMES`. Nothing here imports Keras before a method is loaded.
"""

import functools
import importlib
import importlib.util
import types

# As the supplement orders them; the variants that it lacks beside their kind.
NAMES = (
    *("random", "wm", "wm-global", "vq", "id", "id-weights", "lzr", "ib"),
    *("morphnet", "bar", "bar-flops", "paper", "one-shot", "narrow"),
)
# BAR with other settings: docs/small_budgets.md.
ABLATIONS = {
    "frozen": {"frozen": True},
    "never-decided": {"undecided_fraction": (0.12, 0.12)},
    "half-open": {"initial_logit": 0.0},
    "no-price": {"cost_exponent": 0.0},
    "plain-price": {"cost_exponent": 1.0},
    "exponent-1.25": {"cost_exponent": 1.25},
    "double-price": {"cost_exponent": 2.0},
    "no-rest": {"steps": 1.0},
    "early": {"steps": 0.3},
    "short": {"short": True},
    "line": {"hardness": 0.0},
}


def load(name):
    """The module of a method, or what stands for it, by its name."""
    if name in ABLATIONS:
        run = functools.partial(load("bar").run, **ABLATIONS[name])
        return types.SimpleNamespace(TITLE=name, run=run)
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def titles():
    """Dict from the names of the compared methods to their titles."""
    return {name: load(name).TITLE for name in NAMES}


def check_requirements(names):
    """Raises an ImportError if a package is missing that methods need."""
    for name in names:
        for package in getattr(load(name), "REQUIREMENTS", ()):
            if importlib.util.find_spec(package) is None:
                raise ImportError(
                    f"The method {name!r} needs a package that is missing. "
                    "Expected `pip install keras-bar[baselines]`. "
                    f"Received: no {package}"
                )
