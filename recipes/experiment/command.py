"""Runs a recipe from the command line. Imports nothing that takes seconds."""

import sys

SAFE = "What is finished is kept, and the same command resumes."


class RecipeError(Exception):
    """An expected failure, told in one line."""


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
    if isinstance(error, RecipeError):
        return str(error)
    if isinstance(error, OSError):
        return f"Could not read or write: {error}\n{SAFE}"
    files = sys.modules.get("keras_bar.files")
    if files and isinstance(error, files.DamagedFileError):
        return str(error)
    if "tensorflow" in sys.modules:
        first = str(error).partition("\n")[0]
        errors = sys.modules["tensorflow"].errors
        if isinstance(error, errors.ResourceExhaustedError):
            return f"No room is left: {first}\n{SAFE}"
        hosts = sys.modules.get("recipes.experiment.hosts")
        lost = (
            errors.UnavailableError,
            errors.AbortedError,
            errors.InternalError,
        )
        if isinstance(error, lost) and hosts and hosts.several():
            return (
                f"Another host is gone, or a device of this one ({first}). "
                "What is finished is kept: the same command, on all hosts, "
                "resumes."
            )
    return None
