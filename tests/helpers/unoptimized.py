"""Functions that TensorFlow traces once, and runs as they were traced."""

import functools

import keras
import tensorflow as tf


def install():
    """Leaves out what takes longer than the few steps of an example: the
    rewriting of a graph before it first runs, and a second trace of it."""
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
    if keras.backend.backend() == "tensorflow":
        _build_before_the_trace()


def _build_before_the_trace():
    """Makes `fit` and `evaluate` create the variables of metrics and of the
    optimizer before they trace a step, as they do on JAX and PyTorch.

    Keras's TensorFlow trainer creates them in the trace of the first step, and
    `tf.function` traces a function again that has created variables. Keras has
    no public method that builds the metrics, hence the private ones.
    """
    (kind,) = (
        x for x in keras.Model.__mro__ if "_maybe_symbolic_build" in vars(x)
    )
    original = kind._maybe_symbolic_build

    @functools.wraps(original)
    def build(self, iterator=None, data_batch=None):
        original(self, iterator=iterator, data_batch=data_batch)
        if iterator is None or self.run_eagerly or self._distribute_strategy:
            return
        metrics = self._compile_metrics
        if metrics is not None and not metrics.built:
            dataset = iterator._get_iterator()
            self._symbolic_build(data_batch=dataset.element_spec)
        # A model that is built by its first batch has no variables yet.
        elif self.optimizer and self.built and self.trainable_variables:
            _build(self.optimizer, self.trainable_variables)

    kind._maybe_symbolic_build = build


def _build(optimizer, variables):
    if not optimizer.built:
        optimizer.build(variables)
