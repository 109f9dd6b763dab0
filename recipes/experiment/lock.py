"""One recipe at a time in an output folder."""

import contextlib
import fcntl
import os

from recipes.experiment import hosts


@contextlib.contextmanager
def held(folder, role=None):
    """A context in which this process alone works in a folder. Hosts, and the
    workers of a sweep, share one on purpose; two processes of one role do not.
    The kernel releases the lock of a process that ends, however it ends."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".lock-{role or f'host{hosts.current().index}'}"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise BlockingIOError(
                f"Another recipe is at work in {folder}. Expected that it has "
                "ended, or another --output. Received: the process "
                f"{file.read().strip() or 'unknown'}"
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {os.uname().nodename}")
        file.flush()
        try:
            yield
        finally:
            # A recipe that was refused leaves nothing behind.
            if list(folder.iterdir()) == [path]:
                path.unlink()
                if is_new:
                    folder.rmdir()
