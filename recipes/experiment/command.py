"""Runs a recipe from the command line."""

import sys

from keras_bar import files
from recipes.experiment import backups
from recipes.experiment import hosts
from recipes.experiment import resuming

AGAIN = "What is finished is kept, and the same command goes on where it was."


def run(main):
    """Runs a recipe's `main`. What is no error of the program ends it with a
    line of text and not with a stack trace.

    Args:
        main: Function without arguments.
    """
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command goes on where it was.")
    except (
        backups.DivergedError,
        files.DamagedFileError,
        resuming.OtherRunError,
    ) as error:
        sys.exit(f"\n{error}")
    except OSError as error:
        sys.exit(f"\nCould not read or write: {error}\n{AGAIN}")
    except _exhausted() as error:
        sys.exit(f"\nNo room is left: {_first_line(error)}\n{AGAIN}")
    except hosts.lost() as error:
        sys.exit(
            "\nAnother host is gone, or a device of this one "
            f"({_first_line(error)}). What is finished is kept: the same "
            "command, on all hosts, goes on where it was."
        )


def _exhausted():
    """Types of TensorFlow's errors of a full disk or memory."""
    if "tensorflow" not in sys.modules:
        return ()
    return (sys.modules["tensorflow"].errors.ResourceExhaustedError,)


def _first_line(error):
    return str(error).splitlines()[0]
