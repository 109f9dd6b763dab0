"""Files that are whole, or as they were before."""

import contextlib
import json
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


@contextlib.contextmanager
def replacing(path):
    """A context to write a file in: others never see half of it, and if it
    fails, what was there stays.

    Args:
        path: Where the file is to be.

    Yields:
        `pathlib.Path` to write it to, of the same name and in the same file
        system.
    """
    path = pathlib.Path(path)
    with tempfile.TemporaryDirectory(prefix=".", dir=path.parent) as folder:
        unfinished = pathlib.Path(folder) / path.name
        yield unfinished
        unfinished.replace(path)
