"""Data sets in memory: garments, and scikit-learn's digits."""

from keras_bar import in_memory


def load_garments(name, path, count, skip_broken, **splits):
    """Images of a name in `keras_bar.in_memory`, such as `fashion_mnist`."""
    return getattr(in_memory, f"load_{name}")(path, count, **splits)


def load_digits(path, count, skip_broken):
    """The same test images in every run, whatever its seed."""
    return in_memory.load_digits(count)
