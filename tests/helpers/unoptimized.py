"""Functions that TensorFlow runs as they were traced."""

import tensorflow as tf


def install():
    """Leaves out what rewrites a graph before it first runs, which takes longer
    than the few steps of an example."""
    tf.config.optimizer.set_experimental_options(
        {"disable_meta_optimizer": True}
    )
