"""An arena that runs a model operation by operation, with real tensors.

It allocates what an operation writes, frees what nobody reads any longer, and
remembers its largest size. Nothing of `keras_bar.analysis` takes part.
"""

import keras
import numpy as np

from keras_bar import keras_internals

VIEWS = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Dropout,
    keras.layers.Identity,
)
VIEW_OPERATIONS = ("Reshape", "ExpandDims", "Squeeze")
FUSED = (
    keras.layers.BatchNormalization,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.Activation,
    keras.layers.Rescaling,
    keras.layers.Softmax,
)
FUSED_OPERATIONS = (
    *("Add", "Divide", "Gelu", "Multiply", "Relu", "Relu6", "Sigmoid"),
    *("LeakyRelu", "Silu", "Softmax", "Subtract", "TrueDivide"),
)
MOVES = ("GetItem", "Pad", "Take", "Transpose")


def peak_bytes(model):
    """The largest number of bytes of tensors that exist at once."""
    return _Simulation(model).run()


class _Simulation:
    def __init__(self, model):
        self.tensors = {id(x): _example(x) for x in model.inputs}
        self.made = {}
        self.constant = set()
        for node in keras_internals.nodes_in_order(model):
            self._execute(node)
            if type(node.operation).__name__ == "DotProductAttention":
                self._split(node)
            if isinstance(node.operation, keras.layers.SeparableConv2D):
                self._separate(node)
        self.inputs = [id(x) for x in model.inputs]
        self.outputs = [self._storage(id(x)) for x in model.outputs]
        self.order = []
        for x in self.outputs:
            self._visit(x)

    def _execute(self, node):
        """Runs a node on real tensors, so that their sizes are known."""
        args, kwargs = node.arguments.fill_in(
            {id(x): self.tensors[id(x)] for x in node.input_tensors}
        )
        outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        inputs = [id(x) for x in node.input_tensors]
        held = type(node.operation).__name__ == "ZerosLike"
        for x, value in zip(node.outputs, outputs, strict=True):
            self.tensors[id(x)] = value
            self.made[id(x)] = node
            if held or all(y in self.constant for y in inputs):
                self.constant.add(id(x))

    def _split(self, node):
        """Replaces attention by its steps."""
        query, key, value = node.input_tensors
        products = keras.ops.einsum(
            "btnh,bsnh->bnts", self.tensors[id(query)], self.tensors[id(key)]
        )
        self.tensors[id(products)] = products
        self.made[id(products)] = _Step([query, key], [products])
        (output,) = node.outputs
        self.made[id(output)] = _Step([products, value], [output])
        if {id(query), id(key)} <= self.constant:
            self.constant.add(id(products))

    def _separate(self, node):
        """Replaces a separable convolution by its two."""
        (x,), (output,) = node.input_tensors, node.outputs
        op, shape = node.operation, self.tensors[id(output)].shape
        between = np.zeros(
            (*shape[:-1], x.shape[-1] * op.depth_multiplier), "float32"
        )
        self.tensors[id(between)] = between
        self.made[id(between)] = _Step([x], [between])
        self.made[id(output)] = _Step([between], [output])
        if id(x) in self.constant:
            self.constant.add(id(between))

    def _data(self, x):
        """The tensors of which a tensor is made, without constants."""
        node = self.made.get(x)
        if node is None:
            return []
        found = [id(y) for y in node.input_tensors]
        return [y for y in found if y not in self.constant]

    def _kind(self, x):
        op, data = self.made[x].operation, self._data(x)
        name, is_layer = type(op).__name__, isinstance(op, keras.layers.Layer)
        if len(data) == 1:
            same = self.tensors[x].shape == self.tensors[data[0]].shape
            if isinstance(op, VIEWS) or (
                not is_layer and name in VIEW_OPERATIONS
            ):
                return "view"
            if not is_layer and name in MOVES:
                return "move"
            if same and (isinstance(op, FUSED) or name in FUSED_OPERATIONS):
                return "fused"
        return "add" if name == "Add" else "other"

    def _storage(self, x):
        """The tensor whose memory a tensor shows."""
        while x in self.made and self._kind(x) == "view":
            (x,) = self._data(x)
        return x

    def _uses(self, x):
        """How many operations and outputs read the memory of a tensor."""
        count = self.outputs.count(x)
        for y, node in self.made.items():
            if y == id(node.outputs[0]) and self._kind(y) != "view":
                count += [self._storage(z) for z in self._data(y)].count(x)
        return count

    def _reads(self, x):
        """The tensors that the operation behind a tensor reads from memory,
        and whether it moves any for an addition."""
        kind, found, moved = self._kind(x), [], False
        for y in map(self._storage, self._data(x)):
            joins = kind in ("move", "fused", "add")
            while joins and self._is_move(y) and self._uses(y) == 1:
                moved = True
                y = self._storage(self._data(y)[0])
            found.append(y)
        return found, moved

    def _is_move(self, x):
        """Whether moves, and factors behind them, make a tensor."""
        while x in self.made and self._kind(x) in ("move", "fused"):
            if self._kind(x) == "move":
                return True
            (x,) = map(self._storage, self._data(x))
            if self._uses(x) > 1:
                return False
        return False

    def _visit(self, x):
        node = self.made.get(x)
        if node is None or node in self.order:
            return
        for y in self._reads(x)[0]:
            self._visit(y)
        self.order.append(node)

    def run(self):
        reads = [self._reads(id(node.outputs[0])) for node in self.order]
        stored = {x: self._bytes(x) for x in self.inputs}
        peak = sum(stored.values())
        for i, node in enumerate(self.order):
            first = id(node.outputs[0])
            needed = {x for later, _ in reads[i + 1 :] for x in later}
            needed |= set(self.outputs)
            written = {id(x): self._bytes(id(x)) for x in node.outputs}
            here, moved = reads[i]
            kind = self._kind(first)
            working = dict(stored)
            if not (kind == "fused" and not moved and here[0] not in needed):
                working |= written
            temporary = written[first] if moved and kind == "add" else 0
            peak = max(peak, sum(working.values()) + temporary)
            stored = {
                x: y for x, y in (stored | written).items() if x in needed
            }
        return peak

    def _bytes(self, x):
        return keras.ops.convert_to_numpy(self.tensors[x]).nbytes


class _Step:
    """A step of attention."""

    operation = None

    def __init__(self, input_tensors, outputs):
        self.input_tensors = input_tensors
        self.outputs = outputs


def _example(x):
    shape = [1 if i == 0 else size for i, size in enumerate(x.shape)]
    return keras.ops.convert_to_tensor(np.zeros(shape, x.dtype))
