"""The data sets that `compare.py` knows, each with the networks for it."""

import dataclasses
import functools

from recipes import digits_data
from recipes import fashion_data
from recipes import networks
from recipes.pictures import Pictures


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set. Its phases are the table of its name in `phases.toml`.

    Attributes:
        title: Its name in tables and pictures.
        load: Function from a path, or None, and a number of training pictures
            to `Pictures`.
        count: Integer, of how many pictures a recipe trains by default.
        networks: Dict from a network's name to a function that builds it, with
            random weights and all widths divided by the argument `narrow`. The
            first one is the default.
    """

    title: str
    load: object
    count: int
    networks: dict

    @property
    def network(self):
        return next(iter(self.networks))


def load_digits(path, count):
    if path is not None:
        raise ValueError(
            "The digits come with scikit-learn. Expected no file. "
            f"Received: --data {path}"
        )
    digits = digits_data.load_digits()
    if not 0 < count <= len(digits.x):
        raise ValueError(
            "There are fewer pictures than asked for. Expected at most "
            f"{len(digits.x)}. Received: --pictures {count}"
        )
    return Pictures(
        digits_data.with_channel(digits.x[:count]),
        digits.y[:count],
        digits_data.with_channel(digits.x_test),
        digits.y_test,
    )


FASHION_SHAPE = (fashion_data.SIZE, fashion_data.SIZE, 1)
DATASETS = {
    "fashion_mnist": Dataset(
        "Fashion-MNIST",
        fashion_data.load_fashion,
        10_000,
        {
            "wide_resnet": functools.partial(
                networks.wide_resnet, 10, 2, FASHION_SHAPE, 10
            ),
            "vgg": functools.partial(networks.vgg, FASHION_SHAPE, 10),
        },
    ),
    "digits": Dataset(
        "handwritten digits",
        load_digits,
        1347,
        {
            "wide_resnet": functools.partial(
                networks.wide_resnet, 16, 2, digits_data.input_shape(), 10
            )
        },
    ),
}
