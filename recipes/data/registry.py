"""The data sets of the recipes, each with the networks for it."""

import dataclasses
import functools

from recipes.data import digits_data
from recipes.data import fashion_data
from recipes.data import networks
from recipes.data.in_memory_data import Pictures
from recipes.experiment.preflight import FOLDER

# Of the epochs, on made-up pictures.
SYNTHETIC_SCALE = 0.03


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        title: Its name in tables and pictures.
        phases: The table of its phases in `phases.toml`.
        networks: Dict from a network's name to a function that builds it, with
            random weights and all widths divided by the argument `narrow`. The
            first one is the default.
        load: Function of a path, or None, the number of training pictures, or
            None for all, and whether broken ones are left out; it returns
            `Pictures` or `Stream`.
        check_available: Function of the path and whether broken ones are left
            out, which raises what `load` would, as far as it can tell at once.
        count: Of how many pictures a recipe trains by default.
        scale: Factor on the number of epochs, by default.
        start: Weights with which pruning begins by default: the `"teacher"`'s,
            or random ones, from `"scratch"`.
    """

    title: str
    phases: str
    networks: dict
    load: object
    check_available: object
    count: int | None = None
    scale: float = 1.0
    start: str = "teacher"

    @property
    def network(self):
        return next(iter(self.networks))


def refuse_skipping(path, skip_broken):
    """For pictures that are not files of their own."""
    if skip_broken:
        raise ValueError(
            "These pictures are not files of their own. Expected no "
            "--skip-broken. Received: --skip-broken"
        )


def load_fashion(path, count, skip_broken, tests=10_000):
    return fashion_data.load_fashion(path, count, tests)


def check_digits(path, skip_broken):
    refuse_skipping(path, skip_broken)
    if path is not None:
        raise ValueError(
            "The digits come with scikit-learn. Expected no file. "
            f"Received: --data {path}"
        )


def load_digits(path, count, skip_broken):
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


def check_files(path, skip_broken, name):
    from keras_bar import datasets

    datasets.check_available(name, path or FOLDER, skip_broken)


def load_files(path, count, skip_broken, name):
    from keras_bar import datasets
    from recipes.data import tfds_data as streams

    return streams.Stream(
        datasets.prepare(name, path or FOLDER, skip_broken), count
    )


def load_synthetic(path, count, skip_broken, name, per_class):
    """Writes made-up pictures where there are none yet, and reads them as if
    they were the real ones."""
    from recipes.data import synthetic

    folder = (path or FOLDER).expanduser() / "synthetic" / f"{per_class}"
    synthetic.write_once(name, folder, per_class, -(-per_class // 4))
    return load_files(folder, count, skip_broken, name)


def _files(name, title, networks, per_class, narrow, start="scratch"):
    """A data set of tensorflow-datasets, and made-up pictures like its own
    with a network that is `narrow` times narrower."""
    real = Dataset(
        title,
        name,
        networks,
        functools.partial(load_files, name=name),
        functools.partial(check_files, name=name),
        start=start,
    )
    small = {key: _narrower(build, narrow) for key, build in networks.items()}
    made_up = dataclasses.replace(
        real,
        title=f"made-up pictures, NOT {title}",
        networks=small,
        load=functools.partial(load_synthetic, name=name, per_class=per_class),
        check_available=lambda path, skip_broken: None,
        scale=SYNTHETIC_SCALE,
    )
    return {name: real, f"{name}-synthetic": made_up}


def _narrower(build, narrow):
    return lambda **kwargs: build(narrow=narrow * kwargs.get("narrow", 1))


def _wide_resnet(classes):
    shape = (32, 32, 3)
    network = functools.partial(networks.wide_resnet, 26, 12, shape, classes)
    return {"wide_resnet": network}


def _resnet50(size, classes):
    network = functools.partial(networks.resnet50, (size, size, 3), classes)
    return {"resnet50": network}


FASHION_SHAPE = (fashion_data.SIZE, fashion_data.SIZE, 1)
DATASETS = {
    "fashion_mnist": Dataset(
        "Fashion-MNIST",
        "fashion_mnist",
        {
            "wide_resnet": functools.partial(
                networks.wide_resnet, 10, 2, FASHION_SHAPE, 10
            ),
            "vgg": functools.partial(networks.vgg, FASHION_SHAPE, 10),
        },
        load_fashion,
        refuse_skipping,
        10_000,
    ),
    "digits": Dataset(
        "handwritten digits",
        "digits",
        {
            "wide_resnet": functools.partial(
                networks.wide_resnet, 16, 2, digits_data.input_shape(), 10
            )
        },
        load_digits,
        check_digits,
        1347,
    ),
    # The networks of the paper.
    **_files("cifar10", "CIFAR-10", _wide_resnet(10), 64, 12),
    **_files("cifar100", "CIFAR-100", _wide_resnet(100), 8, 12),
    # The only one of them that starts from the full network (section 3.1).
    **_files("mio_tcd", "Mio-TCD", _resnet50(128, 11), 30, 16, "teacher"),
    **_files("tiny_imagenet", "TinyImageNet", _resnet50(64, 200), 4, 16),
}
