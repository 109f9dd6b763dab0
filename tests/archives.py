"""Small archives in the true layout of public data sets."""

import io

import numpy as np
from PIL import Image

from keras_bar.datasets import mio_tcd

# A number of ImageNet's classes.
NUMBERS = ("n01443537", "n01629819", "n01641577")


def jpeg(seed, size, mode="RGB"):
    """A picture of noise, in other sizes and modes than one would wish."""
    rng = np.random.default_rng(seed)
    shape = (*size, 3) if mode == "RGB" else size
    pixels = rng.integers(0, 256, shape).astype("uint8")
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, "JPEG")
    return buffer.getvalue()


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_tiny_imagenet(folder, count=4, tests=2):
    """`tiny-imagenet-200/` with 3 of its classes, one picture of them grey."""
    root = folder / "tiny-imagenet-200"
    lines, seed = [], 0
    for i, number in enumerate(NUMBERS):
        for j in range(count):
            seed += 1
            grey = "L" if (i, j) == (0, 0) else "RGB"
            name = f"{number}_{j}.JPEG"
            path = root / "train" / number / "images" / name
            write(path, jpeg(seed, (64, 64), grey))
        boxes = root / "train" / number / f"{number}_boxes.txt"
        boxes.write_text(f"{number}_0.JPEG\t0\t10\t63\t58\n")
        for j in range(tests):
            seed += 1
            name = f"val_{tests * i + j}.JPEG"
            write(root / "val" / "images" / name, jpeg(seed, (64, 64)))
            lines.append(f"{name}\t{number}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(reversed(NUMBERS)))
    write(root / "test" / "images" / "test_0.JPEG", jpeg(0, (64, 64)))
    return root


def write_mio_tcd(folder, count=10):
    """`train/` with its 11 classes, in sizes of its pictures, and `test/`."""
    seed = 0
    for i, label in enumerate(mio_tcd.CLASSES):
        for j in range(count):
            seed += 1
            # The archive numbers its pictures through all classes.
            path = folder / "train" / label / f"{seed:08d}.jpg"
            write(path, jpeg(seed, (40 + 13 * i, 150 - 3 * j)))
    write(folder / "test" / "00000000.jpg", jpeg(0, (50, 50)))
    return folder
