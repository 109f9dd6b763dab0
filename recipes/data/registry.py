"""The data sets of the recipes, each with the networks for it.

Imports nothing that takes seconds: a command line is checked with this before
Keras is imported.
"""

import dataclasses
import functools
import importlib
import pathlib
import runpy
from collections.abc import Callable

# Where tensorflow-datasets looks for its data sets, too.
FOLDER = pathlib.Path("~/tensorflow_datasets")
SOURCES = pathlib.Path(__file__).parents[2] / "keras_bar/datasets/sources.py"
# The data sets of the supplement.
PAPER = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mio_tcd": "Mio-TCD",
    "tiny_imagenet": "TinyImageNet",
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set, and the defaults of options for it."""

    title: str
    phases: str  # Its table in `phases.toml`.
    # Functions that build networks, all widths divided by `narrow`; the first
    # one is the default.
    networks: dict
    # From a path, a number of images, and whether broken ones are left out, to
    # `InMemoryData` or `keras_bar.datasets.Stream`.
    load: Callable
    # Raises what that would, from the path and whether broken ones are left
    # out, as far as it can be told at once.
    check: Callable
    # The data set whose numbers in the supplement stand beside.
    published: str | None = "cifar10"
    count: int | None = None
    scale: float = 1.0
    start: str = "teacher"

    @property
    def network(self):
        return next(iter(self.networks))


def lazy(module, function, *args):
    """A function of a module that is imported when it is called."""

    def call(*more, **kwargs):
        found = getattr(importlib.import_module(module), function)
        return found(*args, *more, **kwargs)

    return call


def refuse_skipping(path, skip_broken):
    """For images that are not files of their own."""
    if skip_broken:
        raise ValueError(
            "These images are not files of their own. Expected no "
            "--skip-broken. Received: --skip-broken"
        )


def check_digits(path, skip_broken):
    refuse_skipping(path, skip_broken)
    if path is not None:
        raise ValueError(
            "The digits come with scikit-learn. Expected no file. "
            f"Received: --data {path}"
        )


def check_files(name, path, skip_broken):
    """Raises, within seconds, what is wrong with a data set's folder."""
    # Without the package that it is in, which imports Keras.
    sources = runpy.run_path(str(SOURCES))
    if not sources["SOURCES"][name].files:
        refuse_skipping(path, skip_broken)
    sources["check"](name, path or FOLDER)


def _models(shape, classes):
    """Networks of `keras_bar.models` of many kinds, for small images."""
    build = functools.partial(lazy, "keras_bar.models")
    plain = functools.partial(build("VGG", shape, classes), convolutions=1)
    return {
        "vgg": build("VGG", shape, classes),
        "plain": plain,
        "mobile": build("MobileNet", shape, classes),
        "dense": build("DenseNet", shape, classes),
        "convnext": build("ConvNeXt", shape, classes),
        "vit": build("ViT", shape, classes),
    }


def _wide_resnet(depth, width, shape, classes):
    arguments = (depth, width, shape, classes)
    return {"wide_resnet": lazy("keras_bar.models", "WideResNet", *arguments)}


def _resnet50(shape, classes):
    return {"resnet50": lazy("keras_bar.models", "ResNet50", shape, classes)}


def _narrower(build, factor):
    return lambda narrow=1: build(narrow=narrow * factor)


def _garments(name, title, shape, classes, count):
    """A data set of Fashion-MNIST's images."""
    networks = _wide_resnet(10, 2, shape, classes) | _models(shape, classes)
    load = lazy("recipes.data.in_memory_data", "load_garments", name)
    return {
        name: Dataset(title, name, networks, load, refuse_skipping, count=count)
    }


def _paper(name, networks, shape, narrow, start="scratch"):
    """A data set of the supplement, and synthetic images of a shape, with a
    network that is `narrow` times narrower. The shape is their size, their
    classes, and how many there are per class."""
    real = Dataset(
        PAPER[name],
        name,
        networks,
        lazy("recipes.data.tfds_data", "load", name),
        functools.partial(check_files, name),
        published=name,
        start=start,
    )
    synthetic = dataclasses.replace(
        real,
        title=f"synthetic images, NOT {PAPER[name]}",
        networks={x: _narrower(y, narrow) for x, y in networks.items()},
        load=lazy("recipes.data.tfds_data", "load_synthetic", name, *shape),
        check=lambda path, skip_broken: None,
        published=None,
        scale=0.03,
    )
    return {name: real, f"{name}-synthetic": synthetic}


_CIFAR10 = _wide_resnet(26, 12, (32, 32, 3), 10)
_CIFAR100 = _wide_resnet(26, 12, (32, 32, 3), 100)
_MIO_TCD = _resnet50((128, 128, 3), 11)
_TINY_IMAGENET = _resnet50((64, 64, 3), 200)
DATASETS = {
    **_garments("fashion_mnist", "Fashion-MNIST", (14, 14, 1), 10, 10_000),
    **_garments("multi_fashion", "Multi-Fashion", (18, 18, 1), 100, 20_000),
    "digits": Dataset(
        "handwritten digits",
        "digits",
        _wide_resnet(16, 2, (8, 8, 1), 10),
        lazy("recipes.data.in_memory_data", "load_digits"),
        check_digits,
        count=1347,
    ),
    **_paper("cifar10", _CIFAR10, (32, 10, 64), 12),
    **_paper("cifar100", _CIFAR100, (32, 100, 8), 12),
    # The only one of them that starts from the full network (section 3.1).
    **_paper("mio_tcd", _MIO_TCD, (128, 11, 30), 16, start="teacher"),
    **_paper("tiny_imagenet", _TINY_IMAGENET, (64, 200, 16), 16),
}
