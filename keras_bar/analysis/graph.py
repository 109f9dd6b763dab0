"""A Keras model as a flat list of operations."""

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.analysis import naming
from keras_bar.analysis.nodes import Value


class Graph:
    """A Keras model as a flat list of operations, in the order in which they
    run. `trace` makes it.

    Args:
        model: Functional or Sequential `keras.Model`.

    Attributes:
        name: Name of the model.
        nodes: List of `Node`, each after those it reads from.
        input_tensors: The model's symbolic inputs, flat.
        inputs, outputs: Lists of `Value`, flat.
        input_struct, output_struct: The same, nested as the model has them.
        inside: Dict from the name of a layer or model that was unrolled to the
            names of the nodes that were inside.
        output_names: List of strings, the names of the model's outputs.
        overridden: Names of the methods in which the model differs from a
            plain one; a graph does not contain them.
    """

    def __init__(self, model):
        self.name = model.name
        self.nodes = []
        self.inside = {}
        self.input_tensors = list(model.inputs)
        self.inputs = [Value(x, None) for x in model.inputs]
        for value, x in zip(self.inputs, model.inputs, strict=True):
            value.optional = keras_internals.maker_of(x).optional
        self.outputs = []
        self.input_struct = self.output_struct = None
        self.output_names = naming.output_names(model.outputs)
        self.overridden = []
        # Operations of the model itself keep their names; those inside nested
        # models give way.
        self._names = {x.name for x in kinds.functional(model).operations}

    def fresh_name(self, name):
        """A name like `name` that no operation has."""
        return naming.fresh(name, self._names)

    @property
    def values(self):
        """Every tensor, inputs first."""
        return self.inputs + [x for node in self.nodes for x in node.outputs]
