"""Finds, downloads and prepares the data sets of the paper."""

import os
import pathlib
import shutil

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.download.util import DownloadError

from keras_bar.datasets import cifar
from keras_bar.datasets import mio_tcd
from keras_bar.datasets import sources
from keras_bar.datasets import tiny_imagenet
from keras_bar.datasets.sources import SOURCES

# The classes of the builders that read what the archives extract to.
BUILDERS = {
    "cifar10": cifar.ExtractedCifar10,
    "cifar100": cifar.ExtractedCifar100,
    "tiny_imagenet": tiny_imagenet.TinyImagenet,
    "mio_tcd": mio_tcd.MioTcd,
}


def prepare(
    name: str, folder: str | os.PathLike[str], skip_broken: bool = False
) -> tfds.core.DatasetBuilder:
    """Makes a data set ready to be read.

    What is prepared in the folder is used as it is. Otherwise the archive, or
    what it extracts to, is looked for in the folder, and downloaded if it is
    not there.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"tiny_imagenet"` or `"mio_tcd"`.
        folder: Path of the folder with everything; it is made if need be.
        skip_broken: Boolean, whether pictures that are missing or cannot be
            decoded are left out. They are counted and named in
            `builder.info.metadata`. By default they are refused.

    Returns:
        `tfds.core.DatasetBuilder` with the splits `"train"` and `"test"`.

    Raises:
        ValueError: If there is no such data set, its archive is damaged or
            holds something else, or pictures are broken.
        ConnectionError: Within seconds, if the data set would have to be
            downloaded and cannot be.

    Example:

    The folder `data` holds the archive of Mio-TCD, or what it extracts to.

    >>> from keras_bar import datasets
    >>> builder = datasets.prepare("mio_tcd", "data")
    Downloading and preparing ...
    >>> sorted(builder.info.splits)
    ['test', 'train']
    """
    check_available(name, folder, skip_broken)
    source = SOURCES[name]
    root = sources.around(source, folder)
    builders = _make_builders(name, root, skip_broken)
    for builder in builders:
        if _is_prepared(builder):
            return builder
    builder = builders[0]
    downloads = root / "downloads"
    root.mkdir(parents=True, exist_ok=True)
    try:
        builder.download_and_prepare(
            download_dir=downloads,
            # Archives of CIFAR are looked for here.
            download_config=tfds.download.DownloadConfig(manual_dir=root),
        )
    except (
        NonMatchingChecksumError,
        ExtractError,
    ) as error:
        path = sources.find(source, root) or downloads
        raise ValueError(
            f"The archive of {name} is damaged. Expected it as it is at "
            f"{source.url}; delete it and try again. Received: {path} ({error})"
        ) from error
    except DownloadError as error:
        raise ConnectionError(
            sources.describe(name, source, root, str(error))
        ) from error
    finally:
        # Pictures are stored twice until here, and of another archive under
        # the same name it would still be these that were read.
        shutil.rmtree(downloads / "extracted", ignore_errors=True)
    return builder


def check_available(
    name: str, folder: str | os.PathLike[str], skip_broken: bool = False
) -> None:
    """Raises, within seconds, what `prepare` would raise where there is no such
    data set, or where it would have to be downloaded and cannot be.

    Args:
        name: As `prepare` takes it.
        folder: As `prepare` takes it.
        skip_broken: As `prepare` takes it.

    Example:

    The folder `data` holds the archive of Mio-TCD, or what it extracts to.

    >>> from keras_bar import datasets
    >>> datasets.check_available("mio_tcd", "data")
    """
    if name not in SOURCES:
        raise ValueError(
            "There is no such data set. Expected one of "
            f"{', '.join(map(repr, SOURCES))}. Received: name={name!r}"
        )
    source = SOURCES[name]
    folder = sources.around(source, folder)
    if skip_broken and not source.files:
        raise ValueError(
            f"The pictures of {name} are not files of their own. Expected "
            "skip_broken=False. Received: skip_broken=True"
        )
    builders = _make_builders(name, folder, skip_broken)
    if not sources.find(source, folder) and not any(
        map(_is_prepared, builders)
    ):
        sources.check_network(name, source, folder)


def _make_builders(name, folder, skip_broken):
    """The builders that can be read if they are prepared; the first one is to
    be prepared."""
    source, build = SOURCES[name], BUILDERS[name]
    found = sources.find(source, folder)
    if source.files:
        # Where nothing was broken nothing has to be left out.
        configs = ["readable", "complete"] if skip_broken else ["complete"]
        return [build(data_dir=folder, config=x, source=found) for x in configs]
    extracted = build(data_dir=folder, source=found)
    packed = tfds.builder(name, data_dir=folder)
    if found and found.is_dir():
        return [extracted, packed]
    return [packed, extracted]


def _is_prepared(builder):
    return pathlib.Path(builder.data_dir).exists()
