"""Attributes of Keras's classes that are others for a while."""

import contextlib


@contextlib.contextmanager
def replaced(kind, **attributes):
    """A context in which attributes of a class are others; afterwards they are
    what they were, or inherited again."""
    before = {name: vars(kind).get(name) for name in attributes}
    for name, x in attributes.items():
        setattr(kind, name, x)
    try:
        yield
    finally:
        for name, x in before.items():
            if x is None:
                delattr(kind, name)
            else:
                setattr(kind, name, x)
