"""Files that are whole or not there, whenever their writing is interrupted."""

import contextlib
import os
import uuid
import zlib

CHUNK = 1 << 20


def write(path, text):
    """Writes a text file."""
    name = f"{path.name}.{uuid.uuid4().hex}.unfinished"
    with temporary(path.with_name(name)) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
        put(unfinished, path)


@contextlib.contextmanager
def temporary(path):
    """A context at whose end a file is gone, unless it was put elsewhere: half
    a file could be what fills the disk."""
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def put(unfinished, path):
    """Gives a file that is written its name, in the same file system."""
    with unfinished.open("r+b") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def checksum(path):
    """Eight hexadecimal digits that tell whether a file is what it was."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
