"""Files that are whole, or as they were before."""

import contextlib
import errno
import json
import os
import pathlib
import tempfile


class DamagedFileError(ValueError):
    """A file is not what its name says."""


def read_json(path):
    """The dict in a file, or an empty one where there is no file.

    Args:
        path: `pathlib.Path`.

    Raises:
        DamagedFileError: If there is something else in it.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        raise DamagedFileError(
            f"{path} is not what was written there. Expected a JSON object. "
            f"Received: {found!r}"
        )
    return found


def check_writable(path):
    """Raises a ValueError for a file that `replacing` could not write, before
    anything is computed to be written there.

    Args:
        path: Path of the file.
    """
    path = pathlib.Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with _temporary_folder(path):
            pass
    except OSError as error:
        raise ValueError(
            "This file cannot be written. Expected a path in a folder that "
            f"exists and can be written to. Received: {path} "
            f"({error.strerror})"
        ) from error


@contextlib.contextmanager
def replacing(path):
    """A context to write a file in: others never see half of it, and if it
    fails, what was there stays.

    Args:
        path: Where the file is to be.

    Yields:
        `pathlib.Path` to write it to, of the same name and in the same file
        system.

    Raises:
        OSError: With the name `path`, if nothing can be written there.
    """
    path = pathlib.Path(path)
    with _temporary_folder(path) as folder:
        unfinished = pathlib.Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


def _temporary_folder(path):
    """`TemporaryDirectory` beside a file. Errors name the file: nobody knows
    the folder."""
    try:
        return tempfile.TemporaryDirectory(prefix=".", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
