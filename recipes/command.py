"""Runs a recipe from the command line."""

import sys

from recipes import backups
from recipes import hosts

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
    except backups.DivergedError as error:
        sys.exit(f"\n{error}")
    except OSError as error:
        sys.exit(f"\nCould not read or write: {error}\n{AGAIN}")
    except hosts.lost() as error:
        reason = str(error).splitlines()[0]
        sys.exit(
            f"\nAnother host is gone ({reason}). What is finished is kept: "
            "the same command, on all hosts, goes on where it was."
        )
