"""TinyImageNet for tensorflow-datasets."""

import tensorflow_datasets as tfds

from keras_bar.datasets import image_folders
from keras_bar.datasets.sources import SOURCES

CLASSES = 200
SIZE = 64


class TinyImagenet(image_folders.Local, tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet: 100,000 training and 10,000 test images, 64x64.

    The test images are the archive's validation images, because those in its
    `test` folder have no labels. Labels number the sorted WordNet ids.

    Args:
        source: Path of the archive, extracted or not; by default it is
            downloaded.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`. The config
            `"complete"` refuses unreadable images; `"readable"` leaves
            them out and lists them in the metadata.

    Example:

    >>> from keras_bar import datasets
    >>> builder = datasets.TinyImagenet(data_dir="data")
    >>> builder.info.features["image"].shape
    (64, 64, 3)
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = image_folders.CONFIGS

    def _info(self):
        return image_folders.make_info(
            self,
            "A small ImageNet: 200 classes at 64x64.",
            "http://cs231n.stanford.edu/",
            SIZE,
            tfds.features.ClassLabel(num_classes=CLASSES),
        )

    def _split_generators(self, dl_manager):
        root = image_folders.find_root(
            image_folders.extract(
                self.source, SOURCES["tiny_imagenet"].url, dl_manager
            ),
            "wnids.txt",
            self.name,
        )
        numbers = sorted((root / "wnids.txt").read_text().split())
        if len(numbers) != CLASSES:
            raise ValueError(
                f"{root / 'wnids.txt'} is not that of TinyImageNet. Expected "
                f"{CLASSES} classes. Received: {len(numbers)}"
            )
        labels = {number: i for i, number in enumerate(numbers)}
        self.info.metadata["wordnet"] = numbers
        return {
            "train": self._generate_examples("train", _train(root, labels)),
            "test": self._generate_examples("test", _validation(root, labels)),
        }

    def _generate_examples(self, split, files):
        decode = self.info.features["image"].decode_example
        reader = image_folders.Reader(self.builder_config, self.name)
        for path, label in files:
            data = reader.read(path, decode=decode)
            if data is not None:
                yield path.name, {"image": data, "label": label}
        self.info.metadata[f"left_out_{split}"] = reader.finish()


def _train(root, labels):
    """Paths and labels of all listed training images, present or not."""
    for number, label in labels.items():
        folder = root / "train" / number
        for name, *_ in _rows(folder / f"{number}_boxes.txt"):
            yield folder / "images" / name, label


def _validation(root, labels):
    """Paths and labels of all listed validation images, present or not."""
    folder = root / "val"
    for name, number, *_ in _rows(folder / "val_annotations.txt"):
        yield folder / "images" / name, labels[number]


def _rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]
