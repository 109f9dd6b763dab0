"""The rule of weights that are tensors of a graph."""

import math

import keras
import numpy as np
from keras import ops

from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term


class Parameter(Rule):
    """A weight: every channel of it is alive, and it reads nothing."""

    layers = "Parameter"
    reads_inputs = False

    def propagate_alive(self, node, analysis):
        return [analysis.all_alive(node.output)]

    def propagate_needed(self, node, analysis):
        return [analysis.algebra.constant(np.zeros(1, bool))]

    def terms(self, node, analysis):
        read = analysis.algebra.any(analysis.needed[node.output])
        return [Term("params", math.prod(node.op.shape), ((read, 1),))]

    def rebuild(self, node, builder):
        """An `Embedding` of Keras's, whose rows are those of the weight."""
        op, shape = node.op, node.op.full_shape
        *places, size = shape or (1,)
        rows = math.prod(places)
        zero = builder.zero_per_sample(node.name, "int32")
        if not op.per_sample:
            zero = builder.named(
                ops.max(zero, axis=0, keepdims=True), f"{node.name}_first"
            )
        index = builder.named(ops.reshape(zero, (-1, 1)), f"{node.name}_column")
        index = builder.named(
            ops.add(index, np.arange(rows, dtype="int32")[None]),
            f"{node.name}_rows",
        )
        embedding = builder.made_once(
            node,
            lambda: keras.layers.Embedding(
                rows, size, name=node.name, dtype=op.dtype_policy
            ),
        )
        embedding.trainable = op.trainable
        output = embedding(index)
        value = ops.convert_to_numpy(ops.cast(op.value, "float32"))
        embedding.embeddings.assign(np.reshape(value, (rows, size)))
        target = (-1, *shape[1:]) if op.per_sample else shape
        output = ops.reshape(output, target)
        return [builder.named(output, f"{node.name}_reshape")]
