"""Images of tensorflow-datasets, as a stream of augmented batches.

The stream is a `tf.data` one and not Grain's: the images are written and
decoded by TensorFlow anyway, and `fit` under a `tf.distribute` strategy splits
a batch between hosts for a `tf.data.Dataset` only.
"""

import contextlib
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_bar import datasets
from keras_bar import files
from recipes.data.in_memory_data import BATCH
from recipes.data.in_memory_data import VALIDATION
from recipes.data.registry import FOLDER

if keras.backend.backend() != "tensorflow":
    # It would take the memory that the other backend needs.
    tf.config.set_visible_devices([], "GPU")

# Decoded images up to this size, in bytes, are kept in memory.
MEMORY = 4 * 2**30
# So many are shuffled together where they are not.
SHUFFLED = 50_000
# Pixels around an image, of which a random part is cut away again.
PAD = 4
# Standard deviations below this are those of a channel that is constant.
LEAST = 1e-3


def load(name, path, count, skip_broken):
    """`TfdsData` of a name in `keras_bar.datasets.SOURCES`."""
    return TfdsData(datasets.prepare(name, path or FOLDER, skip_broken), count)


class TfdsData:
    """Training and test images `(height, width, channels)`, normalized per
    channel by the training set's mean and standard deviation.

    Args:
        builder: `tfds.core.DatasetBuilder`, prepared, with the splits
            `"train"` and `"test"` of images and labels.
        count: Integer, with how many images to train, or None for all.
        batch: Integer, images per batch.
    """

    # Every epoch cuts and flips the images in another way.
    repeats = False
    # The curves show the test images, and choose nothing.
    has_validation = False

    def __init__(self, builder, count=None, batch=BATCH):
        self.builder, self.batch = builder, batch
        splits = builder.info.splits
        available = splits["train"].num_examples
        self.count = available if count is None else count
        if not 0 < self.count <= available:
            raise ValueError(
                "There are fewer images than asked for. Expected at most "
                f"{available}. Received: {count}"
            )
        self.tests = splits["test"].num_examples
        self.shape = builder.info.features["image"].shape
        self._in_memory = self.count * np.prod(self.shape) <= MEMORY
        self._train = self._read(f"train[:{self.count}]")
        if self._in_memory:
            self._train = self._train.cache()
            # Filled now: `fit` starts iterators that it does not finish, and
            # with several hosts these have left parts of a cache behind.
            self._train.reduce(0, lambda count, _: count + 1).numpy()
        self.mean, self.deviation = self._statistics()

    @property
    def steps(self):
        """Batches per epoch; images that do not fill one are left out."""
        return self.count // self.batch

    @property
    def validation(self):
        """What `fit` validates on after every epoch."""
        return self.test.take(-(-min(VALIDATION, self.tests) // self.batch))

    @property
    def left_out(self):
        """List of the names of images that could not be read."""
        metadata = self.builder.info.metadata or {}
        splits = [metadata.get(f"left_out_{x}", {}) for x in ("train", "test")]
        return [name for split in splits for name in split]

    @property
    def test(self):
        """The test images, in batches."""
        data = self._normalized(self._read("test")).batch(self.batch)
        return _of_length(data.prefetch(2), -(-self.tests // self.batch))

    def batches(self, seed):
        """`Epochs` of the training images, of an integer seed or several."""
        return Epochs(self, seed)

    def accuracy(self, model, split="test"):
        """Fraction of a split's images that a network of logits gets right."""
        raw = self._train if split == "train" else self._read("test")
        images = self._normalized(raw).batch(self.batch).map(lambda x, y: x)
        logits = model.predict(images.prefetch(2), verbose=0)
        labels = list(raw.map(lambda x, y: y).as_numpy_iterator())
        return float(np.mean(np.argmax(logits, -1) == labels))

    def sample(self, count):
        """Array of the first training images."""
        data = self._normalized(self._train.take(count)).batch(count)
        return next(data.as_numpy_iterator())[0]

    def checksum(self):
        """String that tells other images from these."""
        name = self.builder.info.name.removeprefix("extracted_")
        return f"{name} {self.count} {self.tests}"

    def epoch(self, seed, epoch):
        """The training images of an epoch, in batches: their order, and what
        is cut from them, depend on two integer tensors and nothing else."""
        buffer = self.count if self._in_memory else SHUFFLED
        data = self._normalized(_shuffle(self._train, buffer, seed, epoch))
        # One number of two, so that neighbouring seeds share no epoch.
        both = seed * 1_000_003 + epoch

        def augment(index, pair):
            return _augment(pair[0], tf.stack([both, index])), pair[1]

        data = data.enumerate().map(augment, tf.data.AUTOTUNE)
        return data.batch(self.batch, drop_remainder=True)

    def _read(self, split):
        """Images, decoded if they are kept in memory, and labels."""
        skip = {"image": tfds.decode.SkipDecoding()}
        data = self.builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=None if self._in_memory else skip,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        return _split_batches(data.map(lambda x: (x["image"], x["label"])))

    def _decode(self, image, dtype):
        if image.dtype == tf.string:
            image = self.builder.info.features["image"].decode_example(image)
        return tf.cast(image, dtype)

    def _normalized(self, data):
        def normalize(image, label):
            image = self._decode(image, tf.float32)
            return (image - self.mean) / self.deviation, label

        return data.map(normalize, tf.data.AUTOTUNE)

    def _statistics(self):
        """Mean and standard deviation of the channels over the training set,
        kept beside it."""
        path = pathlib.Path(self.builder.data_dir)
        path = path / f"statistics-{self.count}.json"
        found = files.read_json(path)
        if not found:
            print("mean and deviation of the training images", flush=True)
            found = self._measure()
            # A folder that many share may not be ours to write to.
            with contextlib.suppress(OSError), files.replacing(path) as new:
                new.write_text(json.dumps(found))
        deviation = np.maximum(found["deviation"], LEAST)
        return np.float32(found["mean"]), np.float32(deviation)

    def _measure(self):
        layer = keras.layers.Normalization(axis=-1)
        images = self._train.map(lambda x, y: self._decode(x, tf.float32))
        layer.adapt(images.batch(self.batch))
        names = ("mean", layer.mean), ("deviation", layer.variance**0.5)
        return {x: np.ravel(y).astype(float).tolist() for x, y in names}


class Epochs:
    """What `fit` trains on: `dataset` yields the epoch that is set, so that a
    resumed training sees what an uninterrupted one would have seen.

    Attributes:
        dataset: `tf.data.Dataset` of batches.
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, data, seed):
        seed = np.int64(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
        self.epoch = 0
        # Asked for at the start of every epoch. Not a variable: under a
        # strategy that would be one on every device.
        epochs = tf.data.Dataset.from_generator(
            lambda: [self.epoch],
            output_signature=tf.TensorSpec((), tf.int64),
        )
        batches = epochs.flat_map(lambda epoch: data.epoch(seed, epoch))
        self.dataset = _split_batches(_of_length(batches, data.steps))
        self.dataset = self.dataset.prefetch(2)


def _of_length(data, count):
    return data.apply(tf.data.experimental.assert_cardinality(count))


def _split_batches(data):
    """The same images, in the same order; several hosts share every batch, and
    not the files, of which there may be fewer."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return data.with_options(options)


def _shuffle(data, buffer, seed, seed2):
    """`Dataset.shuffle` whose seeds are tensors, and the only ones: the method
    adds the global seed."""
    shuffled = tf.raw_ops.ShuffleDataset(
        input_dataset=tf.data.experimental.to_variant(data),
        buffer_size=tf.constant(buffer, tf.int64),
        seed=seed,
        seed2=seed2,
        output_types=[x.dtype for x in data.element_spec],
        output_shapes=[x.shape for x in data.element_spec],
        reshuffle_each_iteration=False,
    )
    return tf.data.experimental.from_variant(shuffled, data.element_spec)


def _augment(image, seed):
    """Pads, cuts a random part, and flips every other image."""
    first, second = tf.unstack(tf.random.split(seed, 2))
    padded = tf.pad(image, [[PAD, PAD], [PAD, PAD], [0, 0]])
    image = tf.image.stateless_random_crop(padded, image.shape, first)
    return tf.image.stateless_random_flip_left_right(image, second)
