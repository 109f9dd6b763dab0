"""What trainings have written down, epoch by epoch."""

from keras_bar import files


def read_history(path):
    """Dict from log to its values, one per epoch, in a file that may be
    missing."""
    rows = files.read_json(path)
    epochs = [rows[x] for x in sorted(rows, key=int)]
    return {x: [row[x] for row in epochs] for x in epochs[0]} if rows else {}
