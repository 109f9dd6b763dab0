"""The handwritten digits that come with scikit-learn."""

from keras_bar.in_memory.image_data import InMemoryData

# Training images: three quarters of all.
COUNT = 1347


def load_digits(count: int = COUNT) -> InMemoryData:
    """Loads 1797 handwritten digits of 8x8, a quarter of them for tests.

    The test images are always the same. Training images are shifted by up to
    one pixel.

    Args:
        count: Integer, the number of training images, at most 1347.

    Returns:
        `InMemoryData` of images `(n, 8, 8, 1)` in [0, 1].

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If there are fewer images.

    Example:

    >>> from keras_bar import in_memory
    >>> data = in_memory.load_digits()
    >>> data.x.shape, data.x_test.shape
    ((1347, 8, 8, 1), (450, 8, 8, 1))
    """
    try:
        from sklearn import datasets
        from sklearn import model_selection
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed. "
            "Expected `pip install keras-bar[baselines]`. "
            f"Received: {error}"
        ) from error
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
    return InMemoryData(x[:count], y[:count], x_test, y_test, shift=1)
