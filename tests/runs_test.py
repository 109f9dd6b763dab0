"""Backups, and what can happen to them."""

import contextlib
import os
import resource
import shutil

import keras
import numpy as np
import pytest

from keras_bar import files
from keras_bar import runs
from keras_bar.callbacks import backup
from recipes.experiment import command

EPOCHS = 4

pytestmark = pytest.mark.core


class Data(keras.utils.PyDataset):
    """Batches that depend on the epoch, and from some epoch on are no numbers
    any more."""

    def __init__(self, broken_from=np.inf):
        super().__init__()
        self.epoch = 0
        self.broken_from = broken_from

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rng = np.random.default_rng([self.epoch, index])
        x = rng.normal(size=(8, 64)).astype("float32")
        y = x.sum(1, keepdims=True)
        return x, np.nan * y if self.epoch >= self.broken_from else y


def make_model():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,))])
    # Its noise is part of the state.
    model.add(keras.layers.Dropout(0.2, seed=1))
    model.add(keras.layers.Dense(64, activation="tanh"))
    model.add(keras.layers.Dense(1))
    model.compile("adam", "mse", jit_compile=False)
    return model


def fit(run, model, data, epochs, callbacks=()):
    """Trains a part on the data of each epoch."""
    count = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: setattr(data, "epoch", epoch)
    )
    run.fit("part", model, data, epochs, [*callbacks, count], shuffle=False)


def train(folder, epochs=EPOCHS, data=None, callbacks=()):
    """Trains up to an epoch, from where it was; returns the weights."""
    model = make_model()
    run = runs.Run(folder, {})
    fit(run, model, data or Data(), epochs, callbacks)
    return model.get_weights()


def states(folder):
    """The files of the kept states, the last epoch's first."""
    return sorted((folder / "unfinished" / "part").iterdir(), reverse=True)


def assert_equal(found, expected):
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The weights after an uninterrupted training."""
    return train(tmp_path_factory.mktemp("uninterrupted"))


@pytest.mark.parametrize("done", range(1, EPOCHS + 1))
def test_resumed_equals_uninterrupted(tmp_path, expected, done, capsys):
    train(tmp_path, done)
    assert len(states(tmp_path)) == min(done, backup.KEPT)
    assert_equal(train(tmp_path), expected)
    resumed = f"resumed after epoch {done}" in capsys.readouterr().out
    assert resumed == (done < EPOCHS)


def test_what_stopped_early_is_done(tmp_path, capsys):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stopped = train(tmp_path, callbacks=[Stop()])
    assert_equal(stopped, train(tmp_path / "short", 2))
    assert "part" in capsys.readouterr().out
    assert_equal(train(tmp_path, callbacks=[Stop()]), stopped)
    assert "part" not in capsys.readouterr().out


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    path.write_bytes(b"")


def flip(path):
    """A bit, in the middle of the weights, where no format would see it."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, empty, flip])
def test_the_state_before_a_damaged_one_is_used(
    tmp_path, expected, damage, capsys
):
    train(tmp_path, 3)
    damage(states(tmp_path)[0])
    assert_equal(train(tmp_path), expected)
    shown = capsys.readouterr().out
    assert "is damaged, and removed" in shown
    assert "resumed after epoch 2" in shown


def test_starts_anew_where_all_states_are_damaged(tmp_path, expected):
    train(tmp_path, 3)
    for path in states(tmp_path):
        truncate(path)
    train(tmp_path, 1)
    assert [x.name[:8] for x in states(tmp_path)] == ["epoch-1-"]
    assert_equal(train(tmp_path), expected)


def test_divergence_stops_with_the_last_good_state(tmp_path, expected):
    with pytest.raises(FloatingPointError, match="epoch 3") as error:
        train(tmp_path, data=Data(broken_from=2))
    assert "the state after 2 epochs is kept" in str(error.value)
    assert [x.name[:8] for x in states(tmp_path)] == ["epoch-2-", "epoch-1-"]
    assert_equal(train(tmp_path), expected)


def test_weights_that_diverge_in_the_last_step(tmp_path):
    """The loss of the epoch is finite: it was computed before."""

    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                bias = self.model.layers[-1].bias
                bias.assign([np.inf])

    run = runs.Run(tmp_path, {})
    with pytest.raises(FloatingPointError, match="finite weights"):
        fit(run, make_model(), Data(), EPOCHS, [Break()])
    assert [x.name[:8] for x in states(tmp_path)] == ["epoch-1-"]


def test_divergence_at_once(tmp_path):
    with pytest.raises(FloatingPointError, match="no state is kept"):
        train(tmp_path, data=Data(broken_from=0))


@contextlib.contextmanager
def full_disk(size):
    """No file grows beyond a number of bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # Before pytest writes the next letter to its log.
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing(tmp_path, expected):
    train(tmp_path, 2)
    before = [x.name for x in states(tmp_path)]
    # The journal goes on for longer than the state.
    with full_disk(10_000), pytest.raises(OSError):
        train(tmp_path)
    assert [x.name for x in states(tmp_path)] == before
    assert_equal(train(tmp_path), expected)


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path):
    path = tmp_path / "report.json"
    files.write_json(path, "done")
    with full_disk(100), pytest.raises(OSError):
        files.write_json(path, "more" * 100)
    assert path.read_text() == '"done"'
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_room_is_noticed_before_training(tmp_path, monkeypatch):
    train(tmp_path / "one", 2)
    size = sum(x.stat().st_size for x in states(tmp_path / "one"))
    usage = shutil.disk_usage(tmp_path)._replace(free=size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="Expected .* MiB free"):
        train(tmp_path / "other", 3)
    # There is room for one more.
    train(tmp_path / "one", 3)


@pytest.mark.parametrize("name", ["settings", "report", "prune"])
@pytest.mark.parametrize("text", ['{"a": ', "[]"])
def test_a_damaged_file_is_named(tmp_path, name, text):
    """In one line, instead of a stack trace."""
    runs.Run(tmp_path, {"a": 1})
    (tmp_path / f"{name}.json").write_text(text)

    def read():
        run = runs.Run(tmp_path, {"a": 1})
        run.report()
        run.history("prune")

    with pytest.raises(
        SystemExit, match=f"{name}.json.*Expected a JSON object"
    ):
        command.run(read)
