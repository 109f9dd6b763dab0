"""Appends the calls in a Keras model to a `Graph`; see `trace`."""

import inspect
import math

import keras
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.analysis import masks
from keras_bar.analysis import shuffles
from keras_bar.analysis import static_shapes
from keras_bar.analysis import unrolling
from keras_bar.analysis.nodes import Node
from keras_bar.analysis.nodes import Value
from keras_bar.analysis.nodes import storable
from keras_bar.layers import AddedLoss
from keras_bar.layers import BudgetState


class Tracer:
    """Appends the calls in a model, and in what it unrolls, to a `Graph`."""

    def __init__(self, graph):
        self._graph = graph
        self._shared_calls: dict = {}
        self._opaque: dict = {}  # From the id of an operation to the reason.
        self._of_masks: list = []
        self._losses: list = []

    def unroll(self, model, inputs, prefix="", training=None):
        """Appends the nodes of a Functional model, called on `inputs`, and
        returns its outputs: lists of `Value`."""
        model = kinds.functional(model)
        values = {
            id(x): value for x, value in zip(model.inputs, inputs, strict=True)
        }
        nodes = keras_internals.nodes_in_order(model)
        read = {id(x) for node in nodes for x in node.input_tensors}
        read |= set(map(id, model.outputs))
        shuffled, inside = shuffles.found(nodes, model.outputs)
        for node in nodes:
            if id(node) in inside:
                continue
            name = _name(node.operation, prefix)
            if id(node) in shuffled:
                tensor, *selection = shuffled[id(node)]
                (made,) = node.outputs
                values[id(made)] = self._shuffled(
                    node, name, values[id(tensor)], *selection
                )
                continue
            args, kwargs = _arguments(node, values, training)
            call = _Call(node, name, args, kwargs, bool(prefix))
            self._append(call, read)
            values |= zip(map(id, call.made), call.outputs, strict=True)
        return [values[id(x)] for x in model.outputs]

    def _shuffled(self, keras_node, name, value, operation, indices):
        """The output of a channel shuffle."""
        (made,) = keras_node.outputs
        name = f"{name}_shuffle"
        return self._added(operation, name, (value, indices), like=made)

    def _added(self, op, name, args, kwargs=None, like=None):
        """The output of a new node, which has as many entries per sample as
        its first argument, and by default its shape and type."""
        node = Node(op, self._graph.fresh_name(name), args, kwargs or {})
        like = args[0] if like is None else like
        node.outputs = [Value(like, node, args[0].rows)]
        self._graph.nodes.append(node)
        return node.output

    def _append(self, call, read):
        """Appends the nodes of a call and sets its outputs."""
        nodes = self._graph.nodes
        before = len(nodes)
        nested = kinds.is_functional(call.op)
        around = None if nested else masks.Masks(call.op, *call.arguments)
        if kinds.is_carrier(call.op) and call.kwargs.get("mask") is not None:
            call.outputs = call.tensors(call.args)
            call.outputs[0].mask = call.kwargs["mask"]
        elif nested:
            call.outputs = self._of_nested(call)
        elif found := self._unrolled(call, read):
            inner, call.places = found
            call.outputs = self._of_inner(call, inner, call.tensors())
        elif isinstance(call.op, AddedLoss):
            first, *losses = call.tensors()
            call.outputs = [first]
            self._losses += losses
        elif type(call.op) is keras.layers.Identity and len(call.made) > 1:
            # Several outputs of one name; `replay` names them again.
            call.outputs = call.tensors(call.args)
        else:
            call.outputs = self._of_node(call, around)
        if masks.is_kept(call.keras_node):
            call.outputs[0].mask = call.args[0].mask
        elif around is not None:
            self._set_masks(call, around)
        added = nodes[before:]
        if len(added) != 1 or added[0].op is not call.op:
            names = self._graph.inside.setdefault(call.name, [])
            names.extend(x.name for x in added)

    def _of_inner(self, call, model, inputs):
        """The outputs of a model inside of a call."""
        training = call.kwargs.get("training")
        return self.unroll(model, inputs, f"{call.name}_", training)

    def _of_nested(self, call):
        """The outputs of a nested model, whose inputs have the masks that it is
        called with."""
        called_on = tree.flatten(
            call.args[0] if call.args else call.kwargs["inputs"]
        )
        if call.kwargs.get("mask") is not None:
            given = tree.flatten(call.kwargs["mask"])
            for value, mask in zip(called_on, given, strict=True):
                value.mask = value.mask if mask is None else mask
        return self._of_inner(call, call.op, called_on)

    def _of_node(self, call, around):
        """The outputs of an operation that becomes a node."""
        op, (args, kwargs) = call.op, call.arguments
        opaque = self._opaque.get(id(op), "")
        if isinstance(op, BudgetState):
            # It waits for its other inputs without reading them.
            args = tuple(tree.flatten(args)[:1])
        if opaque:
            args, kwargs = tree.map_structure(
                lambda x: self._carrying(x, around, call), (args, kwargs)
            )
        shared_calls = self._shared_calls.setdefault(id(op), [])
        if call.is_inside or shared_calls:
            call.name = self._graph.fresh_name(call.name)
        node = Node(op, call.name, args, kwargs)
        node.opaque = opaque
        node.shared_calls = shared_calls
        node.shared_calls.append(node)
        specs = _output_specs(node, call.keras_node)
        node.outputs = [
            Value(x, node, static_shapes.rows(node, x.shape, i))
            for i, x in enumerate(specs)
        ]
        self._graph.nodes.append(node)
        return node.outputs

    def _unrolled(self, call, read):
        """The graph inside a layer of the user's, with the places of its
        outputs among those of the layer; or None."""
        op, (args, kwargs) = call.op, call.arguments
        if not unrolling.is_candidate(op):
            return None
        given = call.tensors()
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
        for i, x in enumerate(call.keras_node.outputs):
            if i not in places and id(x) in read:
                self._opaque[id(op)] = "it returns a constant that is read"
                return None
        return inner, places

    def _set_masks(self, call, around):
        """Sets the masks of the outputs of a call."""

        def unroll(model, inputs):
            nodes = self._graph.nodes
            before = len(nodes)
            found = self.unroll(model, inputs, f"{call.name}_")
            self._of_masks += nodes[before:]
            return found

        if any(x.mask is None for x in call.outputs):
            found = around.behind(unroll)
            if found and call.places is not None:
                found = [found[i] for i in call.places]
            # Only the first of several outputs may have masks.
            for value, mask in zip(call.outputs, found, strict=False):
                value.mask = value.mask or mask

    def _carrying(self, value, around, call):
        """A tensor that carries its mask along, for a layer that reads it
        unseen."""
        mask = around.carried.get(value) if _is_value(value) else None
        if mask is None:
            return value
        op, name = masks.carrier(value, call.op), f"{call.name}_with_mask"
        return self._added(op, name, (value,), {"mask": mask})

    def add_losses(self):
        """Adds the losses of all calls at the first output of the model, which
        is computed in any case."""
        if not self._losses:
            return
        graph, first = self._graph, self._graph.outputs[0]
        op = AddedLoss(dtype=first.dtype, name="added_loss")
        output = self._added(op, op.name, (first, self._losses))
        output.mask = first.mask
        graph.outputs = [output if x is first else x for x in graph.outputs]

    def drop_unread_masks(self):
        """Removes what computes masks that nobody reads."""
        graph = self._graph
        outputs = {*graph.outputs, *(x.mask for x in graph.outputs)}
        for node in reversed(self._of_masks):
            if any(x.consumers or x in outputs for x in node.outputs):
                continue
            graph.nodes.remove(node)
            node.shared_calls.remove(node)
            for names in graph.inside.values():
                if node.name in names:
                    names.remove(node.name)
            for value in {*node.inputs}:
                value.consumers = [x for x in value.consumers if x is not node]


class _Call:
    """A call in a graph of Keras that is being traced.

    Attributes:
        keras_node: Keras's node.
        op: The operation.
        name: The name that its node will have, or what is inside begins with.
        args, kwargs: The arguments, with a `Value` in the place of every
            tensor.
        is_inside: Whether it is inside of a layer or nested model.
        places: Places of the outputs among all that a layer returns; None where
            these are all.
        outputs: The outputs, list of `Value`.
    """

    def __init__(self, keras_node, name, args, kwargs, is_inside):
        self.keras_node = keras_node
        self.op = keras_node.operation
        self.name = name
        self.args = args
        self.kwargs = kwargs
        self.is_inside = is_inside
        self.places = None
        self.outputs = []

    @property
    def arguments(self):
        return self.args, self.kwargs

    @property
    def made(self):
        """Keras's symbolic tensors for `outputs`."""
        made = self.keras_node.outputs
        return made if self.places is None else [made[i] for i in self.places]

    def tensors(self, arguments=None):
        """The list of all `Value`s among arguments, by default all."""
        given = self.arguments if arguments is None else arguments
        return [x for x in tree.flatten(given) if _is_value(x)]


def _name(op, prefix):
    """The name of an operation behind that of what it is inside of."""
    # A layer inside another one often has its name in front already.
    repeats = bool(prefix) and op.name.startswith(prefix)
    name = op.name if repeats else prefix + op.name
    # PyTorch refuses points in the names of weights.
    return name.replace(".", "_") if prefix else name


def _arguments(keras_node, values, training):
    """The arguments of a call, with a `Value` in the place of every tensor and
    in the mode in which the graph runs."""
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
