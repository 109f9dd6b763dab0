"""Sources of the data sets of the paper.

This module imports only the standard library, so that recipes can report a
missing data set before they import Keras, which takes seconds.
"""

import dataclasses
import pathlib
import threading
import urllib.request

# Seconds without an answer after which the network counts as unavailable.
PATIENCE = 2.0
# Status codes of servers that do not support HEAD requests.
HEAD_UNSUPPORTED = (405, 501)


@dataclasses.dataclass(frozen=True)
class Source:
    """Source of a data set.

    Attributes:
        url: String, the address of the archive.
        size: String, the size of the download.
        extracted: Name of the folder that the archive extracts to.
        files: Boolean, whether each image is a file, which may be broken.
            Builders of such data sets can also read the archive.
    """

    url: str
    size: str
    extracted: str
    files: bool = False

    @property
    def archive(self):
        """File name of the archive."""
        return self.url.rpartition("/")[2]


SOURCES = {
    "cifar10": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "162 MiB",
        "cifar-10-batches-bin",
    ),
    "cifar100": Source(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "161 MiB",
        "cifar-100-binary",
    ),
    "tiny_imagenet": Source(
        "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
        "237 MiB",
        "tiny-imagenet-200",
        files=True,
    ),
    "mio_tcd": Source(
        "https://tcd.miovision.com/static/dataset/MIO-TCD-Classification.tar",
        "about 2 GiB",
        "MIO-TCD-Classification",
        files=True,
    ),
}


def around(source, folder):
    """The folder of the data sets. Users may instead pass the archive or the
    extracted folder in it."""
    folder = pathlib.Path(folder).expanduser()
    if folder.name in (source.extracted, source.archive):
        return folder.parent
    return folder


def find(source, folder):
    """Path of a data set's extracted folder, else of its archive, or None."""
    for name in (source.extracted, source.archive):
        if (folder / name).exists():
            return folder / name
    return None


def check(name, folder):
    """Raises a ConnectionError within seconds if a data set is neither in a
    folder, prepared or not, nor can be downloaded to there."""
    source = SOURCES[name]
    folder = around(source, folder)
    prepared = (folder / x for x in (name, f"extracted_{name}"))
    if not (any(x.exists() for x in prepared) or find(source, folder)):
        check_network(name, source, folder)


def check_network(name, source, folder):
    """Raises a ConnectionError within seconds if a data set cannot be
    downloaded. tensorflow-datasets would retry for minutes."""
    reasons = ["no answer"]

    def ask():
        request = urllib.request.Request(source.url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=PATIENCE).close()
        except OSError as error:
            code = getattr(error, "code", None)
            if code not in HEAD_UNSUPPORTED:
                reasons.append(str(error))
                return
        reasons.clear()

    # Name resolution has no timeout, hence the thread.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PATIENCE + 1)
    if reasons:
        raise ConnectionError(describe(name, source, folder, reasons[-1]))


def describe(name, source, folder, reason):
    """Error message for a missing data set, with the remedies."""
    return (
        f"{name} is not in {folder} and cannot be downloaded. Expected a "
        f"network, or the archive {source.archive} of {source.url} "
        f"({source.size}), or its folder {source.extracted}, in {folder}. "
        f"Received: {reason}"
    )
