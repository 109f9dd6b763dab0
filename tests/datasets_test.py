"""The data sets, on small archives of their true layout."""

import pathlib
import shutil
import tempfile
import time
import urllib.error

import numpy as np
import pytest
from PIL import Image

tfds = pytest.importorskip("tensorflow_datasets")

from keras_bar import datasets  # noqa: E402
from keras_bar.datasets import MioTcd  # noqa: E402
from keras_bar.datasets import TinyImagenet  # noqa: E402
from keras_bar.datasets import mio_tcd  # noqa: E402
from keras_bar.datasets import sources  # noqa: E402
from tests.helpers import archives  # noqa: E402


class _BuilderTest(tfds.testing.DatasetBuilderTestCase):
    SKIP_CHECKSUMS = True  # Neither archive publishes any.

    @classmethod
    def setUpClass(cls):
        cls.EXAMPLE_DIR = tempfile.mkdtemp()
        archives.write(cls.NAME, pathlib.Path(cls.EXAMPLE_DIR), 4, 2)
        super().setUpClass()

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        shutil.rmtree(cls.EXAMPLE_DIR)


class TinyImagenetTest(_BuilderTest):
    DATASET_CLASS = TinyImagenet
    SPLITS = {"train": 800, "test": 400}
    NAME = "tiny_imagenet"


class MioTcdTest(_BuilderTest):
    DATASET_CLASS = MioTcd
    SPLITS = {"train": 55, "test": 11}
    NAME = "mio_tcd"


del _BuilderTest  # Not a test by itself.


def read(builder, split):
    """Labels and images of a split, in the order they are stored."""
    rows = tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False))
    return [(int(row["label"]), row["image"]) for row in rows]


def counts(builder, split):
    return np.bincount([label for label, _ in read(builder, split)]).tolist()


def break_image(path):
    """Cuts a file, as a broken download does."""
    path.write_bytes(path.read_bytes()[:200])


def test_folders_and_archives_are_found(tmp_path):
    root = archives.write("tiny_imagenet", tmp_path / "folder", 2, 1)
    packed = tmp_path / "packed"
    packed.mkdir()
    shutil.make_archive(packed / root.name, "zip", root.parent, root.name)
    shutil.rmtree(packed / root.name, ignore_errors=True)
    builders = [
        datasets.prepare("tiny_imagenet", x) for x in (root.parent, packed)
    ]
    first, second = (read(x, "train") for x in builders)
    assert counts(builders[0], "train") == [2] * 200
    assert counts(builders[0], "test") == [1] * 200
    for (a, x), (b, y) in zip(first, second, strict=True):
        assert a == b
        np.testing.assert_array_equal(x, y)
    assert builders[0].info.metadata["wordnet"] == sorted(archives.WORDNET)
    # Prepared once, the source is needed no more.
    shutil.rmtree(root)
    assert len(read(datasets.prepare("tiny_imagenet", root.parent), "train"))


def test_images_are_decoded_as_they_are(tmp_path):
    root = archives.write("tiny_imagenet", tmp_path, 1, 1)
    builder = datasets.prepare("tiny_imagenet", tmp_path)
    lines = (root / "val" / "val_annotations.txt").read_text().splitlines()
    labels = sorted(archives.WORDNET)
    expected = {}
    for line in lines:
        name, number, *_ = line.split("\t")
        image = Image.open(root / "val" / "images" / name).convert("RGB")
        expected[labels.index(number)] = np.asarray(image, "int16")
    for label, image in read(builder, "test"):
        assert image.shape == (64, 64, 3)
        # Decoded by another library.
        assert np.abs(image - expected[label]).mean() < 2


def test_a_tenth_of_every_class_is_held_out(tmp_path):
    archives.write("mio_tcd", tmp_path, 18, 2)
    builder = datasets.prepare("mio_tcd", tmp_path)
    assert counts(builder, "train") == [18] * 11
    assert counts(builder, "test") == [2] * 11
    assert builder.info.features["label"].names == list(mio_tcd.CLASSES)
    assert read(builder, "test")[0][1].shape == (128, 128, 3)


@pytest.mark.parametrize(
    "lost", [pytest.param(True, marks=pytest.mark.slow), False]
)
def test_broken_images_are_refused_or_left_out(lost, tmp_path):
    root = archives.write("tiny_imagenet", tmp_path, 2, 2)
    broken = root / "val" / "images" / "val_3.JPEG"
    if lost:
        broken.unlink()
    else:
        break_image(broken)
    gone = root / "train" / archives.WORDNET[5] / "images"
    for image in sorted(gone.iterdir()):
        image.unlink()
    with pytest.raises(ValueError, match=r"Received 2 .*_0.JPEG, .*_1.JPEG"):
        datasets.prepare("tiny_imagenet", tmp_path)
    again = archives.write("tiny_imagenet", tmp_path / "again", 2, 2)
    for image in (again / gone.relative_to(root)).iterdir():
        shutil.copy(image, gone)
    with pytest.raises(ValueError, match=r"Received 1 .* val_3.JPEG"):
        datasets.prepare("tiny_imagenet", tmp_path)
    builder = datasets.prepare("tiny_imagenet", tmp_path, skip_broken=True)
    assert counts(builder, "train") == [2] * 200
    assert counts(builder, "test") == [2, 1] + [2] * 198
    again = datasets.prepare("tiny_imagenet", tmp_path, skip_broken=True)
    assert list(again.info.metadata["left_out_test"]) == ["val_3.JPEG"]


def test_no_network_is_told_at_once(tmp_path, monkeypatch):
    seconds = iter([30])  # The first one hangs, in a thread that outlives this.

    def hang(*_, **__):
        time.sleep(next(seconds, 0))
        raise TimeoutError

    monkeypatch.setattr(sources.urllib.request, "urlopen", hang)
    for name, source in sources.SOURCES.items():
        monkeypatch.setattr(sources, "PATIENCE", 0.1)
        start = time.monotonic()
        with pytest.raises(ConnectionError, match="Expected") as error:
            datasets.prepare(name, tmp_path / "new")
        assert time.monotonic() - start < 4
        assert source.archive in str(error.value)
        assert str(tmp_path) in str(error.value)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name, classes", [("cifar10", 10), ("cifar100", 100)])
def test_extracted_cifar(name, classes, tmp_path):
    root = archives.write(name, tmp_path, 3, 2)
    builder = datasets.prepare(name, tmp_path)
    assert counts(builder, "train") == [3] * classes
    assert counts(builder, "test") == [2] * classes
    rng = np.random.default_rng(0)
    first = rng.permutation(np.repeat(np.arange(classes), 3))[0]
    image = archives.make_image(rng, first, classes, (32, 32))
    # Somewhere among them: they are shuffled when they are prepared.
    found = [x for label, x in read(builder, "train") if label == first]
    assert sum(np.array_equal(image, x) for x in found) == 1
    shutil.rmtree(root)
    assert counts(datasets.prepare(name, tmp_path), "test") == [2] * classes
    with pytest.raises(ValueError, match="not separate files"):
        datasets.prepare(name, tmp_path, skip_broken=True)


def test_wrong_sources(tmp_path):
    with pytest.raises(ValueError, match="Expected one of"):
        datasets.prepare("mnist", tmp_path)
    (tmp_path / "tiny-imagenet-200" / "other").mkdir(parents=True)
    with pytest.raises(
        ValueError, match="Expected a folder that holds wnids.txt"
    ):
        datasets.prepare("tiny_imagenet", tmp_path)
    root = archives.write("mio_tcd", tmp_path, 1, 1)
    shutil.rmtree(root / "train" / "bus")
    with pytest.raises(ValueError, match="Expected a folder for each of"):
        datasets.prepare("mio_tcd", tmp_path)


def test_a_cut_file_of_cifar(tmp_path):
    root = archives.write("cifar10", tmp_path, 2, 1)
    break_image(root / "data_batch_3.bin")
    with pytest.raises(ValueError, match="3.bin is missing or truncated"):
        datasets.prepare("cifar10", tmp_path)


def test_a_whole_archive_in_place_of_a_broken_one(tmp_path):
    root = archives.write("mio_tcd", tmp_path / "made", 9, 1)
    image = next((root / "train" / "car").iterdir())
    whole = image.read_bytes()
    break_image(image)
    archive = tmp_path / root.name
    shutil.make_archive(archive, "tar", root.parent, root.name)
    with pytest.raises(ValueError, match=image.name):
        datasets.prepare("mio_tcd", tmp_path)
    image.write_bytes(whole)
    shutil.make_archive(archive, "tar", root.parent, root.name)
    # By its own name, too.
    builder = datasets.prepare("mio_tcd", tmp_path / f"{root.name}.tar")
    assert sum(counts(builder, "train")) == 99
    # What is complete serves those who would leave something out.
    found = datasets.prepare("mio_tcd", tmp_path, skip_broken=True)
    assert found.builder_config.name == "complete"


def test_what_pillow_forgives_and_tensorflow_does_not(tmp_path):
    root = archives.write("tiny_imagenet", tmp_path, 1, 1)
    broken = root / "val" / "images" / "val_3.JPEG"
    Image.fromarray(np.zeros((64, 70, 3), "uint8")).save(broken, "TIFF")
    with pytest.raises(ValueError, match=r"Received 1 .* val_3.JPEG"):
        datasets.prepare("tiny_imagenet", tmp_path)


def test_a_server_that_has_nothing_is_no_network(tmp_path, monkeypatch):
    def answer(request, timeout):
        raise urllib.error.HTTPError(request.full_url, code, "no", {}, None)

    monkeypatch.setattr(sources.urllib.request, "urlopen", answer)
    code = 404
    with pytest.raises(ConnectionError, match="404"):
        datasets.check_available("mio_tcd", tmp_path)
    code = 405
    datasets.check_available("mio_tcd", tmp_path)


@pytest.mark.parametrize("name", ["tiny_imagenet", "cifar10"])
def test_damaged_archives(name, tmp_path):
    archive = tmp_path / sources.SOURCES[name].archive
    archive.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=f"archive of {name} is damaged"):
        datasets.prepare(name, tmp_path)
