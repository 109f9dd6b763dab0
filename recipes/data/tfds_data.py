"""Pictures of tensorflow-datasets, as a stream of augmented batches."""

import contextlib
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from recipes.data.in_memory_data import BATCH
from recipes.data.in_memory_data import VALIDATION
from recipes.experiment import files

if keras.backend.backend() != "tensorflow":
    # It would take the memory that the other backend needs.
    tf.config.set_visible_devices([], "GPU")

# Decoded pictures up to this size are kept in memory.
MEMORY = 4 * 2**30
# So many are shuffled together where they are not.
SHUFFLED = 50_000
# Pixels around a picture, of which a random part is cut away again.
PAD = 4
# Standard deviations below this are those of a channel that is constant.
LEAST = 1e-3


class Stream:
    """Training and test pictures `(height, width, channels)`, normalised per
    channel by the training set's mean and standard deviation.

    Args:
        builder: `tfds.core.DatasetBuilder`, prepared, with the splits
            `"train"` and `"test"` of pictures and labels.
        count: Integer, with how many pictures to train, or None for all.
        batch: Integer, pictures per batch.
    """

    # Every epoch cuts and flips the pictures in another way.
    repeats = False

    def __init__(self, builder, count=None, batch=BATCH):
        self.builder = builder
        self.batch = batch
        splits = builder.info.splits
        available = splits["train"].num_examples
        self.count = available if count is None else count
        if not 0 < self.count <= available:
            raise ValueError(
                "There are fewer pictures than asked for. Expected at most "
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
        """Batches per epoch; pictures that do not fill one are left out."""
        return self.count // self.batch

    @property
    def validation(self):
        """What `fit` validates on after every epoch."""
        return self.test.take(-(-min(VALIDATION, self.tests) // self.batch))

    @property
    def left_out(self):
        """List of the names of pictures that could not be read."""
        metadata = self.builder.info.metadata or {}
        splits = [metadata.get(f"left_out_{x}", {}) for x in ("train", "test")]
        return [name for split in splits for name in split]

    @property
    def test(self):
        """The test pictures, in batches."""
        count = -(-self.tests // self.batch)
        data = self._finish(self._read("test")).batch(self.batch).prefetch(2)
        return data.apply(tf.data.experimental.assert_cardinality(count))

    def batches(self, seed):
        """`Epochs` of the training pictures.

        Args:
            seed: Integer, or sequence of them.
        """
        return Epochs(self, seed)

    def accuracy(self, model, split="test"):
        """Fraction of a split's pictures that a network of logits gets
        right."""
        raw = self._train if split == "train" else self._read("test")
        pictures = self._finish(raw).batch(self.batch).map(lambda x, y: x)
        logits = model.predict(pictures.prefetch(2), verbose=0)
        labels = list(raw.map(lambda x, y: y).as_numpy_iterator())
        return float(np.mean(np.argmax(logits, -1) == labels))

    def sample(self, count):
        """Array of the first training pictures."""
        data = self._finish(self._train.take(count)).batch(count)
        return next(data.as_numpy_iterator())[0]

    def checksum(self):
        """String that tells other pictures from these."""
        name = self.builder.info.name.removeprefix("extracted_")
        return f"{name} {self.count} {self.tests}"

    def epoch(self, seed, epoch):
        """The training pictures of an epoch, in batches.

        Args:
            seed, epoch: Integer tensors, int64. The order and what is cut
                from the pictures depend on nothing else.
        """
        buffer = self.count if self._in_memory else SHUFFLED
        data = self._finish(_shuffle(self._train, buffer, seed, epoch))
        data = data.enumerate()
        # One number of two, so that neighbouring seeds share no epoch.
        both = seed * 1_000_003 + epoch

        def augment(index, pair):
            image, label = pair
            return _augment(image, tf.stack([both, index])), label

        data = data.map(augment, tf.data.AUTOTUNE)
        return data.batch(self.batch, drop_remainder=True)

    def _read(self, split):
        """Pictures, decoded if they are kept in memory, and labels."""
        decoders = None
        if not self._in_memory:
            decoders = {"image": tfds.decode.SkipDecoding()}
        return _shard_batches(
            self.builder.as_dataset(
                split=split,
                as_supervised=True,
                shuffle_files=False,
                decoders=decoders,
                read_config=tfds.ReadConfig(try_autocache=False),
            )
        )

    def _decode(self, image):
        if image.dtype == tf.string:
            return self.builder.info.features["image"].decode_example(image)
        return image

    def _finish(self, data):
        """Decodes and normalises."""

        def finish(image, label):
            image = tf.cast(self._decode(image), tf.float32)
            return (image - self.mean) / self.deviation, label

        return data.map(finish, tf.data.AUTOTUNE)

    def _statistics(self):
        """Mean and standard deviation of the channels over the training set,
        written down beside it."""
        name = f"statistics-{self.count}.json"
        path = pathlib.Path(self.builder.data_dir) / name
        if path.exists():
            found = json.loads(path.read_text())
        else:
            print("mean and deviation of the training pictures", flush=True)
            found = self._measure()
            # A folder that many share may not be ours to write to.
            with contextlib.suppress(OSError):
                files.write(path, json.dumps(found))
        deviation = np.maximum(found["deviation"], LEAST)
        return np.float32(found["mean"]), np.float32(deviation)

    def _measure(self):
        """Mean and standard deviation per channel."""

        def moments(image, label):
            image = tf.cast(self._decode(image), tf.float64) / 255
            squares = tf.reduce_mean(image**2, [0, 1])
            return tf.stack([tf.reduce_mean(image, [0, 1]), squares])

        sums = self._train.map(moments, tf.data.AUTOTUNE).reduce(
            tf.zeros((2, self.shape[-1]), tf.float64), tf.add
        )
        mean, squares = sums.numpy() / self.count
        deviation = np.sqrt(np.maximum(squares - mean**2, 0))
        return {
            "mean": (255 * mean).tolist(),
            "deviation": (255 * deviation).tolist(),
        }


class Epochs:
    """What `fit` trains on: `dataset` yields the epoch that is set, so that a
    resumed training sees what an uninterrupted one would have seen.

    Attributes:
        dataset: `tf.data.Dataset` of batches.
        epoch: Integer, to be set before every epoch.
    """

    def __init__(self, stream, seed):
        seed = np.random.SeedSequence(seed).generate_state(1)[0] >> 1
        self.epoch = 0
        steps = tf.data.experimental.assert_cardinality(stream.steps)
        # Asked for at the start of every epoch. Not a variable: under a
        # strategy that would be one on every device.
        epochs = tf.data.Dataset.from_generator(
            lambda: [self.epoch],
            output_signature=tf.TensorSpec((), tf.int64),
        )
        data = epochs.flat_map(lambda x: stream.epoch(np.int64(seed), x))
        self.dataset = _shard_batches(data.apply(steps)).prefetch(2)


def _shard_batches(data):
    """The same pictures, in the same order; several hosts share every batch,
    and not the files, of which there may be fewer."""
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
    """Pads, cuts a random part, and flips every other picture."""
    first, second = tf.unstack(tf.random.split(seed, 2))
    shape = image.shape
    padded = tf.pad(image, [[PAD, PAD], [PAD, PAD], [0, 0]])
    image = tf.image.stateless_random_crop(padded, shape, first)
    return tf.image.stateless_random_flip_left_right(image, second)
