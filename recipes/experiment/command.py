"""Starts a recipe from the command line; imports Keras when it must."""

import sys

from recipes.experiment import options

SAFE = "What is finished is kept, and the same command resumes."
# Part of the description of every recipe for a data set of the supplement.
ABOUT = """
The data set is looked for in the folder `--data-dir`, prepared, as its archive
or extracted, and downloaded to there if it is not.
"""


def for_paper(description, dataset):
    """The `main` of the recipe of a data set of the supplement."""

    def main(given=None):
        groups = ("grid", "metric", "training", "output", "paper")
        parser = options.make_parser(
            description + ABOUT, groups, [dataset], compared=["bar"]
        )
        settings = parser.parse_args(given)
        settings.dataset = dataset + "-synthetic" * settings.synthetic
        start(options.check(parser, settings))

    return main


def start(settings):
    """Runs a table of experiments, or a sweep. Only now is Keras imported."""
    if "trials" in settings:
        from recipes.experiment import sweep as kind
    else:
        from recipes.experiment import grid as kind
    kind.run(settings)


def run(main):
    """Runs a recipe's `main`; expected failures print one line and no
    traceback."""
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(f"\nInterrupted. {SAFE}")
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        sys.exit(f"\n{line}")


def describe(error):
    """The line for an expected failure, or None for another one."""
    if isinstance(error, OSError):
        return f"Could not read or write: {error}\n{SAFE}"
    from keras_bar import files
    from keras_bar import multi_host
    from keras_bar import runs

    told = files.DamagedFileError, runs.OtherRunError, FloatingPointError
    if isinstance(error, told):
        return str(error)
    if "tensorflow" in sys.modules:
        first = str(error).partition("\n")[0]
        errors = sys.modules["tensorflow"].errors
        if isinstance(error, errors.ResourceExhaustedError):
            return f"No room is left: {first}\n{SAFE}"
    if multi_host.is_lost_host(error):
        first = str(error).partition("\n")[0]
        return (
            f"Another host is gone, or a device of this one ({first}). What is "
            "finished is kept: the same command, on all hosts, resumes."
        )
    return None
