"""Files that are whole, or as they were before."""

import contextlib
import pathlib
import tempfile


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
