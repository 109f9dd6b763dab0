"""Where the data sets of the paper come from.

Imports only Python's own modules, so that recipes can tell what is missing
before they import Keras, which takes seconds.
"""

import dataclasses
import pathlib
import threading
import urllib.request

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
        files: Boolean, whether each picture is a file, which may be broken.
            These builders can read the archive, too.
    """

    url: str
    size: str
    extracted: str
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
    """The folder of the data sets, where that of the archive, or the archive,
    was named."""
    folder = pathlib.Path(folder).expanduser()
    if folder.name in (source.extracted, source.archive):
        return folder.parent
    return folder


def find(source, folder):
    """The extracted folder of a data set, or else its archive, or None."""
    for name in (source.extracted, source.archive):
        if (folder / name).exists():
            return folder / name
    return None


def check_network(name, source, folder):
    """Raises a ConnectionError within seconds if a data set cannot be
    downloaded. tensorflow-datasets would try for minutes."""
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
        raise ConnectionError(describe(name, source, folder, reasons[-1]))


def describe(name, source, folder, reason):
    """What to do about a data set that is missing."""
    return (
        f"{name} is not in {folder} and cannot be downloaded. Expected a "
        f"network, or the archive {source.archive} of {source.url} "
        f"({source.size}), or its folder {source.extracted}, in {folder}. "
        f"Received: {reason}"
    )
