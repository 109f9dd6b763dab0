"""Finds, downloads and prepares the data sets of the paper."""

import dataclasses
import pathlib
import shutil
import threading
import urllib.request

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import (
    NonMatchingChecksumError,
)
from tensorflow_datasets.core.download.extractor import ExtractError
from tensorflow_datasets.core.download.util import DownloadError

from keras_bar.datasets import cifar
from keras_bar.datasets import mio_tcd
from keras_bar.datasets import tiny_imagenet

# Seconds after which there is taken to be no network.
PATIENCE = 2.0
# Answers of servers that do not say anything about a file without sending it.
ASKED_IN_VAIN = (405, 501)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        url: String.
        size: String, how much is downloaded.
        extracted: Name of the folder that the archive extracts to.
        builder: The class of the builder that reads this folder.
        files: Boolean, whether each picture is a file, which may be broken.
            These builders can read the archive, too.
    """

    url: str
    size: str
    extracted: str
    builder: type
    files: bool = False

    @property
    def archive(self):
        """Name of the archive's file."""
        return self.url.rpartition("/")[2]


SOURCES = {
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "162 MiB",
        "cifar-10-batches-bin",
        cifar.ExtractedCifar10,
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "161 MiB",
        "cifar-100-binary",
        cifar.ExtractedCifar100,
    ),
    "tiny_imagenet": Source(
        tiny_imagenet.URL,
        "237 MiB",
        "tiny-imagenet-200",
        tiny_imagenet.TinyImagenet,
        files=True,
    ),
    "mio_tcd": Source(
        mio_tcd.URL,
        "about 2 GiB",
        "MIO-TCD-Classification",
        mio_tcd.MioTcd,
        files=True,
    ),
}


def prepare(name, folder, skip_broken=False):
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
    """
    check_available(name, folder, skip_broken)
    source = SOURCES[name]
    folder = _around(source, folder)
    builders = _make_builders(name, folder, skip_broken)
    for builder in builders:
        if _is_prepared(builder):
            return builder
    builder = builders[0]
    downloads = folder / "downloads"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        builder.download_and_prepare(
            download_dir=downloads,
            # Archives of CIFAR are looked for here.
            download_config=tfds.download.DownloadConfig(manual_dir=folder),
        )
    except (
        NonMatchingChecksumError,
        ExtractError,
    ) as error:
        path = _find(source, folder) or downloads
        raise ValueError(
            f"The archive of {name} is damaged. Expected it as it is at "
            f"{source.url}; delete it and try again. Received: {path} ({error})"
        ) from error
    except DownloadError as error:
        raise ConnectionError(
            _describe(name, source, folder, str(error))
        ) from error
    finally:
        # Pictures are stored twice until here, and of another archive under
        # the same name it would still be these that were read.
        shutil.rmtree(downloads / "extracted", ignore_errors=True)
    return builder


def check_available(name, folder, skip_broken=False):
    """Raises, within seconds, what `prepare` would raise where there is no such
    data set, or where it would have to be downloaded and cannot be.

    Args:
        name, folder, skip_broken: As `prepare` takes them.
    """
    if name not in SOURCES:
        raise ValueError(
            "There is no such data set. Expected one of "
            f"{', '.join(map(repr, SOURCES))}. Received: name={name!r}"
        )
    source = SOURCES[name]
    folder = _around(source, folder)
    if skip_broken and not source.files:
        raise ValueError(
            f"The pictures of {name} are not files of their own. Expected "
            "skip_broken=False. Received: skip_broken=True"
        )
    builders = _make_builders(name, folder, skip_broken)
    if not _find(source, folder) and not any(map(_is_prepared, builders)):
        _check_network(name, source, folder)


def _around(source, folder):
    """The folder of the data sets, where that of the archive, or the archive,
    was named."""
    folder = pathlib.Path(folder).expanduser()
    if folder.name in (source.extracted, source.archive):
        return folder.parent
    return folder


def _find(source, folder):
    """The extracted folder of a data set, or else its archive, or None."""
    for name in (source.extracted, source.archive):
        if (folder / name).exists():
            return folder / name
    return None


def _make_builders(name, folder, skip_broken):
    """The builders that can be read if they are prepared; the first one is to
    be prepared."""
    source = SOURCES[name]
    found = _find(source, folder)
    if source.files:
        # Where nothing was broken nothing has to be left out.
        configs = ["readable", "complete"] if skip_broken else ["complete"]
        return [
            source.builder(data_dir=folder, config=x, source=found)
            for x in configs
        ]
    extracted = source.builder(data_dir=folder, source=found)
    packed = tfds.builder(name, data_dir=folder)
    if found and found.is_dir():
        return [extracted, packed]
    return [packed, extracted]


def _is_prepared(builder):
    return pathlib.Path(builder.data_dir).exists()


def _check_network(name, source, folder):
    """tensorflow-datasets would try for minutes."""
    reasons = ["no answer"]

    def ask():
        request = urllib.request.Request(source.url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except OSError as error:
            code = getattr(error, "code", None)
            if code not in ASKED_IN_VAIN:
                reasons.append(str(error))
                return
        reasons.clear()

    # Names are looked up without a limit on time.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE + 1)
    if reasons:
        raise ConnectionError(_describe(name, source, folder, reasons[-1]))


def _describe(name, source, folder, reason):
    return (
        f"{name} is not in {folder} and cannot be downloaded. Expected a "
        f"network, or the archive {source.archive} of {source.url} "
        f"({source.size}), or its folder {source.extracted}, in {folder}. "
        f"Received: {reason}"
    )
