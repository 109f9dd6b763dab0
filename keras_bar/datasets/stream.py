"""Images of tensorflow-datasets, as a stream of augmented batches.

The stream uses `tf.data`, not Grain: TensorFlow writes and decodes the images
anyway, and `fit` under a `tf.distribute` strategy only splits batches between
hosts for a `tf.data.Dataset`.
"""

import contextlib
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_bar import devices
from keras_bar import files

# Decoded images up to this size, in bytes, are kept in memory.
MEMORY = 4 * 2**30
# Size of the shuffle buffer, in images, if they are not kept in memory.
SHUFFLED = 50_000
# Border in pixels, padded around an image before the random crop.
PAD = 4
# Minimum standard deviation, for channels that are constant.
LEAST = 1e-3


class Stream:
    """Training and test images of a data set, for `Model.fit`.

    Images are `(height, width, channels)`, normalized per channel by the mean
    and the standard deviation of the training images, which are stored in a
    file beside the data set. Training images are padded by 4 pixels, cropped at
    random, and flipped with probability 1/2. Their order and augmentation
    depend only on a seed and the epoch, so that a resumed training sees the
    same images as an uninterrupted one.

    Args:
        builder: Prepared `tfds.core.DatasetBuilder` with the splits `"train"`
            and `"test"` of images and labels.
        count: Integer, the number of training images, or None for all.
        batch_size: Integer, images per batch.
        validation: Integer, the maximum number of test images to validate with.

    Attributes:
        steps: Integer, batches per epoch; an incomplete last batch is dropped.
        validation: `tf.data.Dataset`, the argument `validation_data` of `fit`.
        left_out: List of the names of images that could not be read.

    Raises:
        ValueError: If the data set has fewer than `count` training images.

    Example:

    The folder `data` holds the archive of Mio-TCD, extracted or not.

    >>> from keras_bar import datasets
    >>> builder = datasets.prepare("mio_tcd", "data")
    Downloading and preparing ...
    >>> stream = datasets.Stream(builder, batch_size=16)
    computing the mean and the deviation of the training images
    >>> batches = stream.batches(seed=0)
    >>> model = keras.Sequential([
    ...     keras.Input((128, 128, 3)),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(11),
    ... ])
    >>> loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    >>> model.compile("adam", loss)
    >>> history = model.fit(
    ...     batches.dataset,
    ...     epochs=2,
    ...     shuffle=False,
    ...     callbacks=[batches],
    ...     validation_data=stream.validation,
    ...     verbose=0,
    ... )
    >>> accuracy = stream.accuracy(model)
    """

    # Whether all epochs have the same images: augmentation differs.
    repeats = False
    # Whether there are validation images beside the test images.
    has_validation = False

    def __init__(
        self,
        builder: tfds.core.DatasetBuilder,
        count: int | None = None,
        batch_size: int = 64,
        validation: int = 2000,
    ):
        self.builder, self.batch_size = builder, batch_size
        splits = builder.info.splits
        available = splits["train"].num_examples
        self.count = available if count is None else count
        if not 0 < self.count <= available:
            raise ValueError(
                "Invalid number of training images. Expected 1 to "
                f"{available}. Received: count={count}"
            )
        self.tests = splits["test"].num_examples
        self._validated = min(validation, self.tests)
        shape = builder.info.features["image"].shape
        self._in_memory = self.count * np.prod(shape) <= MEMORY
        self._train = self._read(f"train[:{self.count}]")
        if self._in_memory:
            self._train = self._train.cache()
            # Fill the cache now: `fit` does not finish all iterators that it
            # starts, which on several hosts has left partial caches behind.
            self._train.reduce(0, lambda count, _: count + 1).numpy()
        self.mean, self.deviation = self._statistics()

    @property
    def steps(self):
        """Batches per epoch; an incomplete last batch is dropped."""
        return self.count // self.batch_size

    @property
    def validation(self):
        """The argument `validation_data` of `fit`."""
        size, count = self.batch_size, self._validated
        shared = devices.replicas()
        if shared > 1:  # Devices share every batch, and hosts take as many.
            size = min(size, count - count % shared)
            count -= count % size
        else:
            count = min(-(-count // size) * size, self.tests)
        data = self._normalized(self._read("test")).take(count)
        data = data.batch(size, drop_remainder=shared > 1).prefetch(2)
        return _of_length(data, -(-count // size))

    @property
    def left_out(self):
        """List of the names of images that could not be read."""
        metadata = self.builder.info.metadata or {}
        splits = [metadata.get(f"left_out_{x}", {}) for x in ("train", "test")]
        return [name for split in splits for name in split]

    def batches(self, seed: int | list[int]) -> "Epochs":
        """Returns the training batches, shuffled and augmented by a seed."""
        return Epochs(self, seed)

    def accuracy(self, model: keras.Model, split: str = "test") -> float:
        """Returns the fraction of a split's images that a model, which returns
        logits, classifies correctly."""
        raw = self._train if split == "train" else self._read("test")
        images = (
            self._normalized(raw).batch(self.batch_size).map(lambda x, y: x)
        )
        with devices.on_one_device(model) as alone:
            logits = alone.predict(images.prefetch(2), verbose=0)
        labels = list(raw.map(lambda x, y: y).as_numpy_iterator())
        return float(np.mean(np.argmax(logits, -1) == labels))

    def sample(self, count: int) -> np.ndarray:
        """Returns the first `count` training images, normalized."""
        data = self._normalized(self._train.take(count)).batch(count)
        return next(data.as_numpy_iterator())[0]

    def checksum(self) -> str:
        """Returns a string that identifies the images."""
        name = self.builder.info.name.removeprefix("extracted_")
        return f"{name} {self.count} {self.tests}"

    def epoch(self, seed, epoch):
        """The training batches of an epoch. The order and the augmentation
        depend only on the seed and the epoch, two integer tensors."""
        buffer = self.count if self._in_memory else SHUFFLED
        data = self._normalized(_shuffle(self._train, buffer, seed, epoch))
        # A combination in which neighbouring seeds share no epoch.
        both = seed * 1_000_003 + epoch

        def augment(index, pair):
            return _augment(pair[0], tf.stack([both, index])), pair[1]

        data = data.enumerate().map(augment, tf.data.AUTOTUNE)
        return data.batch(self.batch_size, drop_remainder=True)

    def _read(self, split):
        """Pairs of image and label; images kept in memory are decoded."""
        skip = {"image": tfds.decode.SkipDecoding()}
        data = self.builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=None if self._in_memory else skip,
            read_config=tfds.ReadConfig(try_autocache=False),
        )
        return _split_batches(data.map(lambda x: (x["image"], x["label"])))

    def _decode(self, image):
        if image.dtype == tf.string:
            image = self.builder.info.features["image"].decode_example(image)
        return tf.cast(image, tf.float32)

    def _normalized(self, data):
        def normalize(image, label):
            return (self._decode(image) - self.mean) / self.deviation, label

        return data.map(normalize, tf.data.AUTOTUNE)

    def _statistics(self):
        """Mean and standard deviation of the channels over the training set,
        from a file beside it that is written if missing."""
        path = pathlib.Path(self.builder.data_dir)
        path = path / f"statistics-{self.count}.json"
        found: dict[str, Any] = files.read_json(path)
        if not found:
            print(
                "computing the mean and the deviation of the training images",
                flush=True,
            )
            layer = keras.layers.Normalization(axis=-1)
            images = self._train.map(lambda x, y: self._decode(x))
            layer.adapt(images.batch(self.batch_size))
            names = ("mean", layer.mean), ("deviation", layer.variance**0.5)
            found = {x: np.ravel(y).astype(float).tolist() for x, y in names}
            # A shared folder may be read-only.
            with contextlib.suppress(OSError):
                files.write_json(path, found)
        deviation = np.maximum(found["deviation"], LEAST)
        return np.float32(found["mean"]), np.float32(deviation)


class Epochs(keras.callbacks.Callback):
    """The training batches of a `Stream`, for `fit`. `dataset` yields the
    batches of `epoch`, which this object sets as a callback of `fit`."""

    def __init__(self, data, seed):
        super().__init__()
        seed = np.int64(np.random.SeedSequence(seed).generate_state(1)[0] >> 1)
        self.epoch = 0
        # The generator runs at the start of every epoch. A variable would be
        # copied to every device of a strategy.
        epochs = tf.data.Dataset.from_generator(
            lambda: [self.epoch],
            output_signature=tf.TensorSpec((), tf.int64),
        )
        batches = epochs.flat_map(lambda epoch: data.epoch(seed, epoch))
        self.dataset = _split_batches(_of_length(batches, data.steps))
        self.dataset = self.dataset.prefetch(2)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch


def _of_length(data, count):
    return data.apply(tf.data.experimental.assert_cardinality(count))


def _split_batches(data):
    """Fixes the order, and lets several hosts share every batch instead of the
    files, which may be fewer than the hosts."""
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return data.with_options(options)


def _shuffle(data, buffer, seed, seed2):
    """`Dataset.shuffle` with two tensors as its only seeds: the method itself
    would also use the global seed."""
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
    """Pads, crops at random, and flips with probability 1/2."""
    first, second = tf.unstack(tf.random.split(seed, 2))
    padded = tf.pad(image, [[PAD, PAD], [PAD, PAD], [0, 0]])
    image = tf.image.stateless_random_crop(padded, image.shape, first)
    return tf.image.stateless_random_flip_left_right(image, second)
