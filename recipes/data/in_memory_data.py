"""Data sets in memory: garments, and scikit-learn's digits."""

from keras_bar import in_memory


def load_garments(name, path, count, skip_broken, **splits):
    """Images of a name in `keras_bar.in_memory`, such as `fashion_mnist`."""
    return getattr(in_memory, f"load_{name}")(path, count, **splits)


def load_digits(path, count, skip_broken):
    """1797 images of 8x8; the same quarter of them is for tests in every run,
    whatever its seed."""
    from sklearn import datasets
    from sklearn import model_selection

    bunch = datasets.load_digits()
    x, x_test, y, y_test = model_selection.train_test_split(
        (bunch.images / 16).astype("float32")[..., None],
        bunch.target,
        test_size=0.25,
        stratify=bunch.target,
        random_state=0,
    )
    if count > len(x):
        raise ValueError(
            "There are fewer images than asked for. Expected at most "
            f"{len(x)} for training. Received: count={count}"
        )
    return in_memory.InMemoryData(x[:count], y[:count], x_test, y_test, shift=1)
