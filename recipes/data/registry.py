"""The data sets of the recipes, each with the networks for it.

Imports nothing that takes seconds: a command line is checked with this before
Keras is imported.
"""

import dataclasses
import functools
import importlib.util
import pathlib
import sys
from collections.abc import Callable

# Where tensorflow-datasets looks for its data sets, too.
FOLDER = pathlib.Path("~/tensorflow_datasets")
SOURCES = pathlib.Path(__file__).parents[2] / "keras_bar/datasets/sources.py"
# Factor on the number of epochs, for synthetic images.
SYNTHETIC_SCALE = 0.03
# The data sets of the supplement.
PAPER = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "mio_tcd": "Mio-TCD",
    "tiny_imagenet": "TinyImageNet",
}


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        title: Its name in tables and figures.
        phases: Its table in `phases.toml`.
        networks: Dict from names to functions that build networks, all widths
            divided by `narrow`; the first one is the default.
        load: Function of a path, a number of images, and whether broken ones
            are left out; returns `InMemoryData` or `TfdsData`.
        check: Function of a path, and whether broken images are left out;
            raises what `load` would, as far as that can be told at once.
        published: Whose numbers in the supplement stand beside, or None.
        count: With how many images a recipe trains by default.
        scale: Factor on the number of epochs, by default.
        start: `"teacher"` or `"scratch"`, the weights that are pruned.
    """

    title: str
    phases: str
    networks: dict
    load: Callable
    check: Callable
    published: str | None = "cifar10"
    count: int | None = None
    scale: float = 1.0
    start: str = "teacher"

    @property
    def network(self):
        return next(iter(self.networks))


def lazy(module, function, *args, **kwargs):
    """A function of this package's, imported when it is called."""

    def call(*more, **others):
        found = importlib.import_module(f"recipes.data.{module}")
        return getattr(found, function)(*args, *more, **kwargs, **others)

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
    sources = _import_alone(SOURCES)
    source = sources.SOURCES[name]
    if not source.files:
        refuse_skipping(path, skip_broken)
    folder = sources.around(source, path or FOLDER)
    prepared = (folder / x for x in (name, f"extracted_{name}"))
    if not sources.find(source, folder) and not any(
        x.exists() for x in prepared
    ):
        sources.check_network(name, source, folder)


def _import_alone(path):
    """A module without the package that it is in, which imports Keras."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Data classes look their module up.
    spec.loader.exec_module(module)
    return module


def _paper(name, network, size, classes, per_class, narrow, start="scratch"):
    """A data set of the supplement, and synthetic images of its shape with a
    network that is `narrow` times narrower."""
    networks = {network: _NETWORKS[network](size, classes)}
    real = Dataset(
        PAPER[name],
        name,
        networks,
        lazy("tfds_data", "load", name),
        functools.partial(check_files, name),
        published=name,
        start=start,
    )
    synthetic = dataclasses.replace(
        real,
        title=f"synthetic images, NOT {PAPER[name]}",
        networks={x: _narrower(y, narrow) for x, y in networks.items()},
        load=lazy("synthetic", "load", name, size, classes, per_class),
        check=lambda path, skip_broken: None,
        published=None,
        scale=SYNTHETIC_SCALE,
    )
    return {name: real, f"{name}-synthetic": synthetic}


def _narrower(build, narrow):
    return lambda **kwargs: build(narrow=narrow * kwargs.get("narrow", 1))


_NETWORKS = {
    "wide_resnet": lambda size, classes: lazy(
        "networks", "wide_resnet", 26, 12, (size, size, 3), classes
    ),
    "resnet50": lambda size, classes: lazy(
        "networks", "resnet50", (size, size, 3), classes
    ),
}
DATASETS = {
    "fashion_mnist": Dataset(
        "Fashion-MNIST",
        "fashion_mnist",
        {
            "wide_resnet": lazy(
                "networks", "wide_resnet", 10, 2, (14, 14, 1), 10
            ),
            "vgg": lazy("networks", "vgg", (14, 14, 1), 10),
        },
        lazy("in_memory_data", "load_fashion_mnist"),
        refuse_skipping,
        count=10_000,
    ),
    "digits": Dataset(
        "handwritten digits",
        "digits",
        {"wide_resnet": lazy("networks", "wide_resnet", 16, 2, (8, 8, 1), 10)},
        lazy("in_memory_data", "load_digits"),
        check_digits,
        count=1347,
    ),
    # The networks of the supplement; synthetic images per class.
    **_paper("cifar10", "wide_resnet", 32, 10, 64, 12),
    **_paper("cifar100", "wide_resnet", 32, 100, 8, 12),
    # The only one of them that starts from the full network (section 3.1).
    **_paper("mio_tcd", "resnet50", 128, 11, 30, 16, start="teacher"),
    **_paper("tiny_imagenet", "resnet50", 64, 200, 16, 16),
}
