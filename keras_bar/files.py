"""Atomic writing and checked reading of files."""

import contextlib
import errno
import json
import os
import pathlib
import tempfile


class DamagedFileError(ValueError):
    """The content of a file is damaged."""


def read_json(path):
    """Reads a dict from a JSON file; returns an empty one if there is no file.

    Args:
        path: `pathlib.Path`.

    Raises:
        DamagedFileError: If the file does not hold a JSON object.
    """
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        found = error
    if not isinstance(found, dict):
        raise DamagedFileError(
            f"{path} was damaged or replaced. Expected a JSON object. "
            f"Received: {found!r}"
        )
    return found


def check_writable(path):
    """Raises a ValueError if `replacing` could not write a file.

    Called before the content of the file is computed.

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
            "The file cannot be written. Expected a path in a folder that "
            f"exists and can be written to. Received: {path} "
            f"({error.strerror})"
        ) from error


@contextlib.contextmanager
def replacing(path):
    """Context in which a file is replaced atomically.

    Readers never see a partial file, and a failure keeps the previous one.

    Args:
        path: Path of the file.

    Yields:
        `pathlib.Path` of a temporary file with the same name, in the same file
        system.

    Raises:
        OSError: With the name `path`, if the file cannot be written.
    """
    path = pathlib.Path(path)
    with _temporary_folder(path) as folder:
        unfinished = pathlib.Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)


def write_text(path, text):
    """Replaces a file of text atomically."""
    with replacing(path) as new:
        new.write_text(text, encoding="utf-8")


def write_json(path, value):
    """Replaces a JSON file atomically."""
    write_text(path, json.dumps(value, indent=1))


def _temporary_folder(path):
    """Creates a `TemporaryDirectory` beside a file. Errors name the file,
    because the folder's name is random."""
    try:
        return tempfile.TemporaryDirectory(prefix=".", dir=path.parent)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
