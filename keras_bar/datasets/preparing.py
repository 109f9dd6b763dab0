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

# Builders that read the extracted archives.
BUILDERS = {
    "cifar10": cifar.ExtractedCifar10,
    "cifar100": cifar.ExtractedCifar100,
    "tiny_imagenet": tiny_imagenet.TinyImagenet,
    "mio_tcd": mio_tcd.MioTcd,
}


def prepare(
    name: str, folder: str | os.PathLike[str], skip_broken: bool = False
) -> tfds.core.DatasetBuilder:
    """Prepares a data set for reading.

    A prepared data set in the folder is used directly. Otherwise the
    archive, extracted or not, is read from the folder, or downloaded if the
    folder does not have it.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"tiny_imagenet"` or `"mio_tcd"`.
        folder: Path of the folder of the data; created if necessary.
        skip_broken: Boolean, whether to leave out images that are missing or
            cannot be decoded, and list them in `builder.info.metadata`, instead
            of refusing them. Defaults to False.

    Returns:
        `tfds.core.DatasetBuilder` with the splits `"train"` and `"test"`.

    Raises:
        ValueError: If the name is unknown, the archive is damaged or is a
            different one, or images are broken.
        ConnectionError: Within seconds, if a necessary download is
            impossible.

    Example:

    The folder `data` holds the archive of Mio-TCD, extracted or not.

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
            # The builders of CIFAR look for archives here.
            download_config=tfds.download.DownloadConfig(manual_dir=root),
        )
    except (
        NonMatchingChecksumError,
        ExtractError,
    ) as error:
        path = sources.find(source, root) or downloads
        raise ValueError(
            f"The archive of {name} is damaged. Expected the file at "
            f"{source.url}; delete it and try again. Received: {path} ({error})"
        ) from error
    except DownloadError as error:
        raise ConnectionError(
            sources.describe(name, source, root, str(error))
        ) from error
    finally:
        # The extracted images would otherwise stay as a second copy, and would
        # be read instead of a later archive with the same name.
        shutil.rmtree(downloads / "extracted", ignore_errors=True)
    return builder


def check_available(
    name: str, folder: str | os.PathLike[str], skip_broken: bool = False
) -> None:
    """Raises the error of `prepare`, within seconds, if a data set is unknown
    or can neither be found nor downloaded.

    Args:
        name: As `prepare` takes it.
        folder: As `prepare` takes it.
        skip_broken: As `prepare` takes it.

    Example:

    The folder `data` holds the archive of Mio-TCD, extracted or not.

    >>> from keras_bar import datasets
    >>> datasets.check_available("mio_tcd", "data")
    """
    if name not in SOURCES:
        raise ValueError(
            "The data set is unknown. Expected one of "
            f"{', '.join(map(repr, SOURCES))}. Received: name={name!r}"
        )
    source = SOURCES[name]
    folder = sources.around(source, folder)
    if skip_broken and not source.files:
        raise ValueError(
            f"The images of {name} are not separate files. Expected "
            "skip_broken=False. Received: skip_broken=True"
        )
    builders = _make_builders(name, folder, skip_broken)
    if not sources.find(source, folder) and not any(
        map(_is_prepared, builders)
    ):
        sources.check_network(name, source, folder)


def _make_builders(name, folder, skip_broken):
    """The builders whose prepared data are accepted; `prepare` prepares the
    first one."""
    source, build = SOURCES[name], BUILDERS[name]
    found = sources.find(source, folder)
    if source.files:
        # A complete data set is accepted because it has nothing to skip.
        configs = ["readable", "complete"] if skip_broken else ["complete"]
        return [build(data_dir=folder, config=x, source=found) for x in configs]
    extracted = build(data_dir=folder, source=found)
    packed = tfds.builder(name, data_dir=folder)
    if found and found.is_dir():
        return [extracted, packed]
    return [packed, extracted]


def _is_prepared(builder):
    return pathlib.Path(builder.data_dir).exists()
