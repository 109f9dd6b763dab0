"""The Mio-TCD classification data set for tensorflow-datasets."""

import zlib

import tensorflow_datasets as tfds

from keras_bar.datasets import image_folders
from keras_bar.datasets.sources import SOURCES

CLASSES = (
    "articulated_truck",
    "background",
    "bicycle",
    "bus",
    "car",
    "motorcycle",
    "non-motorized_vehicle",
    "pedestrian",
    "pickup_truck",
    "single_unit_truck",
    "work_van",
)
SIZE = 128
# One out of this many images of each class belongs to the test set.
HELD_OUT = 10


class MioTcd(image_folders.Local, tfds.core.GeneratorBasedBuilder):
    """Images from traffic cameras in 11 classes, resized to 128x128 (Luo et
    al. 2018).

    The archive's own test images have no labels, so a fixed tenth of each
    class is held out as the test set: the images whose names have the smallest
    checksums. The archive has no list of its images, so a missing image goes
    unnoticed.

    Args:
        source: Path of the archive, extracted or not; by default it is
            downloaded.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`. The config
            `"complete"` refuses unreadable images; `"readable"` leaves
            them out and lists them in the metadata.

    Example:

    >>> from keras_bar import datasets
    >>> builder = datasets.MioTcd(data_dir="data")
    >>> builder.info.features["label"].num_classes
    11
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = image_folders.CONFIGS

    def _info(self):
        return image_folders.make_info(
            self,
            "Vehicles and pedestrians in images from traffic cameras.",
            "https://tcd.miovision.com/",
            SIZE,
            tfds.features.ClassLabel(names=CLASSES),
        )

    def _split_generators(self, dl_manager):
        root = image_folders.find_root(
            image_folders.extract(
                self.source, SOURCES["mio_tcd"].url, dl_manager
            ),
            "train",
            self.name,
        )
        found = {x.name: x for x in (root / "train").iterdir() if x.is_dir()}
        if set(found) != set(CLASSES):
            raise ValueError(
                f"{root / 'train'} is not that of Mio-TCD. Expected a folder "
                f"for each of {', '.join(CLASSES)}. "
                f"Received: {', '.join(sorted(found))}"
            )
        train, test = [], []
        for label in CLASSES:
            files = [x for x in found[label].iterdir() if _is_image(x)]
            files.sort(key=_place)
            count = round(len(files) / HELD_OUT)
            test += [(path, label) for path in files[:count]]
            train += [(path, label) for path in files[count:]]
        return {
            "train": self._generate_examples("train", train),
            "test": self._generate_examples("test", test),
        }

    def _generate_examples(self, split, files):
        reader = image_folders.Reader(self.builder_config, self.name)
        for path, label in files:
            data = reader.read(path, (SIZE, SIZE))
            if data is not None:
                # Two classes may use the same file name.
                yield f"{label}/{path.name}", {"image": data, "label": label}
        self.info.metadata[f"left_out_{split}"] = reader.finish()


def _is_image(path):
    return path.suffix.lower() in (".jpg", ".jpeg")


def _place(path):
    return zlib.crc32(path.name.encode()), path.name
