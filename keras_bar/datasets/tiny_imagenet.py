"""TinyImageNet as a data set of tensorflow-datasets."""

import tensorflow_datasets as tfds

from keras_bar.datasets import image_folders
from keras_bar.datasets.sources import SOURCES

CLASSES = 200
SIZE = 64


class TinyImagenet(image_folders.Local, tfds.core.GeneratorBasedBuilder):
    """200 classes of ImageNet at 64x64: 100,000 pictures to train and 10,000
    to test with.

    The latter are the archive's validation pictures; those of its `test`
    folder have no labels. Labels count the WordNet numbers in their order.

    Args:
        source: Path of the archive, extracted or not; by default it is
            downloaded.
        **kwargs: Arguments of `tfds.core.GeneratorBasedBuilder`. The config
            `"complete"` refuses pictures that cannot be read, `"readable"`
            leaves them out and names them in the metadata.

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
            "ImageNet in small: 200 classes at 64x64.",
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
    """The pictures that the lists of boxes name, there or not."""
    for number, label in labels.items():
        folder = root / "train" / number
        for name, *_ in _rows(folder / f"{number}_boxes.txt"):
            yield folder / "images" / name, label


def _validation(root, labels):
    """The pictures that the list names, there or not."""
    folder = root / "val"
    for name, number, *_ in _rows(folder / "val_annotations.txt"):
        yield folder / "images" / name, labels[number]


def _rows(path):
    return [line.split("\t") for line in path.read_text().splitlines()]
