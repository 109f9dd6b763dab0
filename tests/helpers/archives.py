"""Synthetic archives in the true layouts of public data sets. The colour and a
stripe of an image, plus noise, identify its class."""

import io

import numpy as np
from PIL import Image

from keras_bar.datasets import mio_tcd

# Classes of TinyImageNet; numbers like those of ImageNet.
WORDNET = [f"n{10_000_000 + 7919 * i}" for i in range(200)]


def write(name, folder, count, tests):
    """Writes a data set in the layout of its extracted archive.

    Args:
        name: `"cifar10"`, `"cifar100"`, `"tiny_imagenet"` or `"mio_tcd"`.
        folder: `pathlib.Path`, where the archive would be extracted.
        count: Integer, training images per class.
        tests: Integer, test images per class. For Mio-TCD a tenth of all
            images is the test set.

    Returns:
        `pathlib.Path` of the archive's folder.
    """
    return _WRITERS[name](folder, count, tests)


def make_image(rng, label, classes, size):
    """Array uint8 `(height, width, 3)`."""
    height, width = size
    # The class determines the hue and the height of the stripe.
    angle = 2 * np.pi * label / classes
    colour = 128 + 60 * np.sin(angle + np.array([0, 2.1, 4.2]))
    image = rng.normal(colour, 40, (height, width, 3))
    first = round(label % 10 / 10 * height)
    image[first : first + max(1, height // 10)] += 70
    return np.clip(image, 0, 255).astype("uint8")


def encode(image):
    """The bytes of a JPEG file, grey where there is no channel axis."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG")
    return buffer.getvalue()


def _write_cifar10(folder, count, tests):
    root = folder / "cifar-10-batches-bin"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    parts = np.array_split(_cifar_records(rng, 10, count), 5)
    for i, part in enumerate(parts, 1):
        (root / f"data_batch_{i}.bin").write_bytes(part.tobytes())
    test = _cifar_records(rng, 10, tests)
    (root / "test_batch.bin").write_bytes(test.tobytes())
    _write_names(root / "batches.meta.txt", "class", 10)
    return root


def _write_cifar100(folder, count, tests):
    root = folder / "cifar-100-binary"
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", count), ("test", tests)):
        records = _cifar_records(rng, 100, n)
        coarse = records[:, :1] // 5
        whole = np.concatenate([coarse, records], 1)
        (root / f"{name}.bin").write_bytes(whole.tobytes())
    _write_names(root / "coarse_label_names.txt", "group", 20)
    _write_names(root / "fine_label_names.txt", "class", 100)
    return root


def _cifar_records(rng, classes, count):
    """Rows of a label and 3x32x32 pixels, shuffled."""
    labels = rng.permutation(np.repeat(np.arange(classes), count))
    rows = [
        [
            label,
            *make_image(rng, label, classes, (32, 32)).transpose(2, 0, 1).flat,
        ]
        for label in labels
    ]
    return np.array(rows, "uint8")


def _write_names(path, prefix, count):
    path.write_text("".join(f"{prefix}_{i}\n" for i in range(count)))


def _write_tiny_imagenet(folder, count, tests):
    root = folder / "tiny-imagenet-200"
    rng = np.random.default_rng(0)
    lines, size = [], (64, 64)

    def put(path, label):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = make_image(rng, label, len(WORDNET), size)
        # Some of the real images are grey.
        path.write_bytes(encode(image[..., 0] if label == 7 else image))

    for label, number in enumerate(WORDNET):
        for i in range(count):
            name = f"{number}_{i}.JPEG"
            put(root / "train" / number / "images" / name, label)
        boxes = [f"{number}_{i}.JPEG\t0\t10\t63\t58\n" for i in range(count)]
        path = root / "train" / number / f"{number}_boxes.txt"
        path.write_text("".join(boxes))
        for i in range(tests):
            name = f"val_{tests * label + i}.JPEG"
            put(root / "val" / "images" / name, label)
            lines.append(f"{name}\t{number}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(WORDNET)))
    put(root / "test" / "images" / "test_0.JPEG", 0)
    return root


def _write_mio_tcd(folder, count, tests):
    root = folder / "MIO-TCD-Classification"
    rng = np.random.default_rng(0)
    number = 0
    for label, name in enumerate(mio_tcd.CLASSES):
        path = root / "train" / name
        path.mkdir(parents=True)
        for _ in range(count + tests):
            number += 1
            size = rng.integers(30, 160, 2)
            image = make_image(rng, label, len(mio_tcd.CLASSES), size)
            (path / f"{number:08d}.jpg").write_bytes(encode(image))
    (root / "test").mkdir()
    (root / "test" / "00000000.jpg").write_bytes(encode(image))
    return root


_WRITERS = {
    "cifar10": _write_cifar10,
    "cifar100": _write_cifar100,
    "tiny_imagenet": _write_tiny_imagenet,
    "mio_tcd": _write_mio_tcd,
}
