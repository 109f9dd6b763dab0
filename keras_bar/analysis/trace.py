"""A Keras model as a flat list of operations, in the order in which they run;
`trace` unrolls nested models, subclassed layers and subclassed models.
"""

import contextlib
import inspect
import math

import keras
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.analysis import masks
from keras_bar.analysis import naming
from keras_bar.analysis import products
from keras_bar.analysis import static_shapes
from keras_bar.analysis import unrolling
from keras_bar.analysis.cloning import clone as clone
from keras_bar.analysis.cloning import copy_state as copy_state
from keras_bar.analysis.cloning import named_in_errors
from keras_bar.analysis.cloning import without_random_values
from keras_bar.analysis.nodes import Node as Node
from keras_bar.analysis.nodes import Value as Value
from keras_bar.analysis.nodes import storable
from keras_bar.layers import BudgetState


class Graph:
    """A traced model.

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
        self.output_names = naming.output_names(model.outputs)
        self.overridden = []
        source = kinds.functional(model)
        # Operations of the model itself keep their names; those inside nested
        # models give way.
        self._names = {x.name for x in source.operations}
        self._shared_calls = {}
        self._opaque = {}
        self._of_masks = []
        outputs = self._unroll(model, self.inputs, prefix="", training=None)
        self.outputs = outputs
        self._drop_unread_masks()
        masks.hide(self)
        # Mapped, not packed again: on PyTorch Keras would sort dict keys.
        known = dict(zip(map(id, model.inputs), self.inputs, strict=True))
        known |= zip(map(id, model.outputs), outputs, strict=True)
        self.input_struct, self.output_struct = tree.map_structure(
            lambda x: known[id(x)],
            keras_internals.structures(source),
        )

    def _unroll(self, model, inputs, prefix, training):
        """Appends the nodes of `model`, called on `inputs`."""
        model = kinds.functional(model)
        values = {
            id(x): value for x, value in zip(model.inputs, inputs, strict=True)
        }
        nodes = keras_internals.nodes_in_order(model)
        read = {id(x) for node in nodes for x in node.input_tensors}
        read |= set(map(id, model.outputs))
        for node in nodes:
            self._append(node, values, prefix, training, read)
        return [values[id(x)] for x in model.outputs]

    def _append(self, keras_node, values, prefix, training, read):
        op = keras_node.operation
        # A layer inside another one often has its name in front already.
        repeats = bool(prefix) and op.name.startswith(prefix)
        name = op.name if repeats else prefix + op.name
        if prefix:  # PyTorch refuses points in the names of weights.
            name = name.replace(".", "_")
        args, kwargs = self._arguments(keras_node, values, training)
        before = len(self.nodes)
        made = keras_node.outputs
        nested = kinds.is_functional(op)
        around = None if nested else masks.Masks(op, args, kwargs)
        places = None
        if kinds.is_carrier(op) and kwargs.get("mask") is not None:
            outputs = [x for x in tree.flatten(args) if isinstance(x, Value)]
            outputs[0].mask = kwargs["mask"]
        elif nested:
            called_on = tree.flatten(args[0] if args else kwargs["inputs"])
            if kwargs.get("mask") is not None:
                given = tree.flatten(kwargs["mask"])
                for value, mask in zip(called_on, given, strict=True):
                    value.mask = value.mask if mask is None else mask
            outputs = self._unroll(
                op, called_on, f"{name}_", kwargs.get("training")
            )
        elif found := self._unrolled(op, args, kwargs, keras_node, read):
            inner, places = found
            made = [made[i] for i in places]
            called_on = [
                x for x in tree.flatten((args, kwargs)) if isinstance(x, Value)
            ]
            outputs = self._unroll(
                inner, called_on, f"{name}_", kwargs.get("training")
            )
        elif type(op) is keras.layers.Identity and len(keras_node.outputs) > 1:
            # Several outputs of one name; `replay` names them again.
            outputs = [x for x in tree.flatten(args) if isinstance(x, Value)]
        else:
            if isinstance(op, BudgetState):
                # It waits for its other inputs without reading them.
                args = tuple(tree.flatten(args)[:1])
            if self._opaque.get(id(op)):
                args, kwargs = tree.map_structure(
                    lambda x: self._carrying(x, around, op, name),
                    (args, kwargs),
                )
            shared_calls = self._shared_calls.setdefault(id(op), [])
            first = not prefix and not shared_calls
            name = name if first else self.fresh_name(name)
            node = Node(op, name, args, kwargs)
            node.opaque = self._opaque.get(id(op), "")
            node.shared_calls = shared_calls
            node.shared_calls.append(node)
            specs = _output_specs(node, keras_node)
            node.outputs = [
                Value(x, node, static_shapes.rows(node, x.shape, i))
                for i, x in enumerate(specs)
            ]
            self.nodes.append(node)
            outputs = node.outputs
        values |= zip(map(id, made), outputs, strict=True)
        if masks.is_kept(keras_node):
            outputs[0].mask = args[0].mask
        elif around is not None:
            self._set_masks(outputs, around, places, name)
        nodes = self.nodes[before:]
        if len(nodes) != 1 or nodes[0].op is not op:
            self.inside.setdefault(name, []).extend(x.name for x in nodes)

    def _arguments(self, keras_node, values, training):
        """The arguments of a call, with a `Value` in the place of every tensor
        and in the mode in which the graph runs."""
        op = keras_node.operation
        args, kwargs = tree.map_structure(
            lambda x: (
                values.get(id(x), x)
                if isinstance(x, keras.KerasTensor)
                else storable(x)
            ),
            (keras_node.arguments.args, keras_node.arguments.kwargs),
        )
        # A layer's own `training` overrides its model's.
        if kwargs.get("training") is None:
            kwargs.pop("training", None)
            if training is not None and _accepts_training(op):
                kwargs["training"] = training
        if type(op).__name__ == "Concatenate" and args:
            # A part of a split may be empty.
            parts = [x for x in args[0] if 0 not in getattr(x, "shape", ())]
            args = (parts, *args[1:]) if len(parts) > 1 else args
        return args, kwargs

    def _unrolled(self, op, args, kwargs, keras_node, read):
        """The graph inside a layer of the user's, with the places of its
        outputs among those of the layer; or None."""
        if not unrolling.is_candidate(op):
            return None
        given = [x for x in tree.flatten((args, kwargs)) if _is_value(x)]
        if any(x.optional for x in given):
            self._opaque[id(op)] = "an input of it may be None"
            return None
        # The mode of the call becomes that of everything inside.
        others = {x: y for x, y in kwargs.items() if x != "training"}
        rows = math.lcm(*(math.ceil(x.rows) for x in given))
        specs, others = tree.map_structure(_as_symbolic, (args, others))
        try:
            inner, places = unrolling.unroll(op, specs, others, rows=rows)
        except unrolling.Opaque as error:
            self._opaque[id(op)] = str(error)
            return None
        for i, x in enumerate(keras_node.outputs):
            if i not in places and id(x) in read:
                self._opaque[id(op)] = "it returns a constant that is read"
                return None
        return inner, places

    def _set_masks(self, outputs, around, places, name):
        """Sets the masks of the outputs of a call, which are those at some
        places among all that the layer returns."""

        def unroll(model, inputs):
            before = len(self.nodes)
            found = self._unroll(model, inputs, f"{name}_", training=None)
            self._of_masks += self.nodes[before:]
            return found

        if any(x.mask is None for x in outputs):
            found = around.behind(unroll)
            if found and places is not None:
                found = [found[i] for i in places]
            # Only the first of several outputs may have masks.
            for value, mask in zip(outputs, found, strict=False):
                value.mask = value.mask or mask

    def _carrying(self, value, around, reader, name):
        """A tensor that carries its mask along, for a layer that reads it
        unseen."""
        mask = around.carried.get(value) if isinstance(value, Value) else None
        if mask is None:
            return value
        op = masks.carrier(value, reader)
        name = self.fresh_name(f"{name}_with_mask")
        node = Node(op, name, (value,), {"mask": mask})
        node.outputs = [Value(value, node, value.rows)]
        self.nodes.append(node)
        return node.output

    def _drop_unread_masks(self):
        """Removes what computes masks that nobody reads."""
        outputs = {*self.outputs, *(x.mask for x in self.outputs)}
        for node in reversed(self._of_masks):
            if any(x.consumers or x in outputs for x in node.outputs):
                continue
            self.nodes.remove(node)
            node.shared_calls.remove(node)
            for names in self.inside.values():
                if node.name in names:
                    names.remove(node.name)
            for value in {*node.inputs}:
                value.consumers = [x for x in value.consumers if x is not node]

    def fresh_name(self, name):
        """A name like `name` that no operation has."""
        return naming.fresh(name, self._names)

    @property
    def values(self):
        """Every tensor, inputs first."""
        return self.inputs + [x for node in self.nodes for x in node.outputs]


def trace(model, inputs=None):
    """Traces a model.

    Args:
        model: A built `keras.Model`: Functional, Sequential or subclassed.
        inputs: Structure of `keras.Input` for a subclassed model, by default
            like those that it was built for.

    Returns:
        A `Graph`.

    Raises:
        ValueError: If the model has no graph of layers, and its `call` does not
            show one.
    """
    kinds.check_is_network(model)
    kinds.check_inputs(model, inputs)
    overridden = kinds.overridden_methods(model)
    if not kinds.is_functional(model):
        try:
            model = unrolling.unroll_model(model, inputs)
        except unrolling.Opaque as error:
            raise ValueError(
                "This model has no graph of layers to analyse. Expected a "
                "Functional or Sequential `keras.Model`, or a subclassed one "
                "whose `call` works on symbolic tensors and computes nothing "
                f"but what they show. Received: {model.name!r} (of type "
                f"{type(model)}), but {error}"
            ) from error
    graph = Graph(model)
    graph.overridden = overridden
    return graph


def call(op, node, tensors, initialize=False):
    """Calls `op` as `node` was called, on new tensors.

    Args:
        op: Operation.
        node: `Node`.
        tensors: Dict from `Value` to the new tensor.
        initialize: Whether a new layer keeps the random values with which it
            begins, which take long to draw. Otherwise these weights are 0.

    Returns:
        The flat list of output tensors.
    """

    def tensor_of(x):
        # On constants alone, in inference, masks change nothing.
        is_left_out = x in node.masks and x not in tensors
        return None if is_left_out else tensors[x]

    args, kwargs = tree.map_structure(
        lambda x: tensor_of(x) if isinstance(x, Value) else x,
        (node.args, node.kwargs),
    )
    values = (
        contextlib.nullcontext() if initialize else without_random_values(op)
    )
    with named_in_errors(op), values, products.are_dense():
        return tree.flatten(op(*args, **kwargs))


def _accepts_training(op):
    return "training" in inspect.signature(op.call).parameters


def _output_specs(node, keras_node):
    """The outputs of a call, as tensors with a shape and a dtype.

    A nested model may have been built for inputs of any size and be called on
    inputs of a known size; and `EinsumDense` forgets sizes that its input has.
    """
    if isinstance(node.op, keras.layers.EinsumDense):
        (made,) = keras_node.outputs
        shape = static_shapes.einsum_shape(node.op, node.inputs[0].shape)
        return [keras.KerasTensor(shape, made.dtype)]
    called_on = tree.flatten(keras_node.input_tensors)
    known = [tuple(x.shape) for x in called_on]
    if [x.shape for x in node.inputs] == known[: len(node.inputs)]:
        return keras_node.outputs
    args, kwargs = tree.map_structure(_as_symbolic, (node.args, node.kwargs))
    return tree.flatten(node.op.compute_output_spec(*args, **kwargs))


def _is_value(x):
    return isinstance(x, Value)


def _as_symbolic(x):
    return keras.KerasTensor(x.shape, x.dtype) if _is_value(x) else x
