"""Callbacks that decide what another callback sees."""

import keras


class CallbackWrapper(keras.callbacks.Callback):
    """Passes every hook of training and validation to `run`.

    A subclass decides in `run` which of them the wrapped callback sees. The
    model and the parameters of `fit` are always passed on.

    Args:
        callback: `keras.callbacks.Callback`.
    """

    def __init__(self, callback: keras.callbacks.Callback):
        super().__init__()
        self.callback = callback

    def run(self, hook, *args):
        """Called with the name and the arguments of each hook."""
        getattr(self.callback, hook)(*args)

    @property
    def async_safe(self):
        """Whether Keras may continue while the callback handles a batch."""
        hooks = ("on_train_batch_end", "on_test_batch_end")
        base = keras.callbacks.Callback
        return getattr(self.callback, "async_safe", False) or all(
            getattr(type(self.callback), x) is getattr(base, x) for x in hooks
        )

    def set_params(self, params):
        super().set_params(params)
        self.callback.set_params(params)

    def set_model(self, model):
        super().set_model(model)
        self.callback.set_model(model)

    def on_train_begin(self, logs=None):
        self.run("on_train_begin", logs)

    def on_train_end(self, logs=None):
        self.run("on_train_end", logs)

    def on_epoch_begin(self, epoch, logs=None):
        self.run("on_epoch_begin", epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        self.run("on_epoch_end", epoch, logs)

    def on_train_batch_begin(self, batch, logs=None):
        self.run("on_train_batch_begin", batch, logs)

    def on_train_batch_end(self, batch, logs=None):
        self.run("on_train_batch_end", batch, logs)

    def on_test_begin(self, logs=None):
        self.run("on_test_begin", logs)

    def on_test_end(self, logs=None):
        self.run("on_test_end", logs)

    def on_test_batch_begin(self, batch, logs=None):
        self.run("on_test_batch_begin", batch, logs)

    def on_test_batch_end(self, batch, logs=None):
        self.run("on_test_batch_end", batch, logs)
