"""The logs of all epochs of a training that was interrupted."""

import keras
import numpy as np

from keras_bar import callbacks
from keras_bar import reports


def train(path, first, last):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    logger = callbacks.HistoryLogger(path)
    x, y = np.ones((8, 4)), np.zeros((8, 1))
    return model.fit(
        x, y, initial_epoch=first, epochs=last, callbacks=[logger], verbose=0
    )


def test_an_epoch_that_is_repeated_is_there_once(tmp_path):
    path = tmp_path / "history.json"
    train(path, 0, 3)
    # After a kill between the last row and the state.
    losses = train(path, 2, 4).history["loss"]
    history = reports.read_history(path)
    assert set(history) == {"loss", "seconds"}
    assert len(history["loss"]) == 4
    np.testing.assert_allclose(history["loss"][2:], losses, rtol=1e-5)
