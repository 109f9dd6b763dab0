"""CIFAR-10 and CIFAR-100 from local folders."""

import pathlib

import tensorflow_datasets as tfds

from keras_bar.datasets.image_folders import Local

# Bytes of an image, without its labels.
PIXELS = 3 * 32 * 32


class _Extracted:
    """Replaces the download manager of a builder.

    Args:
        folder: Path of the folder that an archive was extracted to.
    """

    def __init__(self, folder):
        self.folder = folder

    def download_and_extract(self, url):
        return self.folder


class _FromFolder(Local):
    def _split_generators(self, dl_manager):
        assert self.source is not None  # These builders do not download.
        folder = pathlib.Path(self.source).parent
        # `_cifar_info` comes from the builder that this class is mixed into.
        _check_files(folder, self._cifar_info)  # type: ignore[attr-defined]
        return super()._split_generators(_Extracted(folder))  # type: ignore[misc]


def _check_files(folder, info):
    """Raises a ValueError if a file of an archive is missing or truncated."""
    record = len(info.label_keys) + PIXELS
    for name in (*info.train_files, *info.test_files):
        path = folder / info.prefix / name
        size = path.stat().st_size if path.exists() else 0
        if not size or size % record:
            raise ValueError(
                f"{path} is missing or truncated. Expected images of {record} "
                f"bytes. Received: {size} bytes"
            )


class ExtractedCifar10(_FromFolder, tfds.image_classification.Cifar10):
    """CIFAR-10 from the folder `cifar-10-batches-bin` of its archive.

    Args:
        source: Path of the folder.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`.
    """


class ExtractedCifar100(_FromFolder, tfds.image_classification.Cifar100):
    """CIFAR-100 from the folder `cifar-100-binary` of its archive.

    Args:
        source: Path of the folder.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`.
    """
