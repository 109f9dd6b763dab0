"""Masks of time steps, which Keras carries along with tensors, as tensors of
the graph.

A layer reads the mask of its input unseen, and hands on that of its output. A
rebuilt network would lose them, because operations carry none. In a traced
graph every layer therefore has its masks among its arguments.
"""

import inspect

import keras
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import replaying
from keras_bar.analysis.nodes import Value


class Masks:
    """The masks of one call of an operation in a `Graph`.

    Args:
        op: `keras.Operation`.
        args, kwargs: Arguments of the call, with a `Value` in the place of
            every tensor. The masks that Keras would pass are added to `kwargs`.

    Attributes:
        carried: Dict from the tensors among them to the masks that these carry.
    """

    def __init__(self, op, args, kwargs):
        self._op = op
        self._previous = None
        self.carried = {
            x: x.mask
            for x in tree.flatten((args, kwargs))
            if _is_value(x) and x.mask is not None
        }
        seen = self.carried or kwargs.get("mask") is not None
        if not isinstance(op, keras.Layer) or not (seen or _begins(op)):
            return  # Most models have no masks.
        given = _bound(op, args, kwargs)
        self._first = next(iter(given.values()), None)
        self._previous = tree.map_structure(_mask, self._first)
        kwargs |= _unseen(given)
        if kwargs.get("mask") is not None:
            self._previous = kwargs["mask"]
        if _takes_masks(op):
            for x in (given["query"], given["value"], given["key"]):
                if x is not None:
                    x.mask = None

    def behind(self, unroll):
        """The masks of the outputs, list of `Value` or None; empty if there are
        none.

        Args:
            unroll: Function of a Functional model, and a list of `Value`, its
                inputs, that returns its outputs as `Value`s.
        """
        op = self._op
        if not isinstance(op, keras.Layer) or not op.supports_masking:
            return []
        if not _any(self._previous) and not _begins(op):
            return []
        specs: dict = {}

        def spec(x):
            if not _is_value(x):
                return x
            if x not in specs:
                specs[x] = keras.Input(batch_shape=x.shape, dtype=x.dtype)
            return specs[x]

        with keras_internals.undisturbed(op):
            structure = (self._first, self._previous)
            arguments = tree.map_structure(spec, structure)
            known = {id(y): x for x, y in specs.items()}
            found = tree.flatten(op.compute_mask(*arguments))
            new = [
                x
                for x in found
                if isinstance(x, keras.KerasTensor) and id(x) not in known
            ]
            inner = new and replaying.functional([*specs.values()], new, "mask")
        if new:
            _refuse_variables(op, inner)
            known |= zip(map(id, new), unroll(inner, list(specs)), strict=True)
        return [known.get(id(x)) for x in found]


def attach(layer, args, kwargs):
    """Gives the tensors that attention is called on the masks that it is called
    with: it reads these from the tensors."""
    if _takes_masks(layer):
        given = _bound(layer, args, kwargs)
        for name in ("query", "value", "key"):
            if given[f"{name}_mask"] is not None:
                keras_internals.set_keras_mask(
                    given[name], given[f"{name}_mask"]
                )


def carrier(value, reader):
    """A model that returns a tensor which carries the mask that it is called
    with: an ordinary one, because only Keras loads a compact model.

    Args:
        value: `Value` like its input.
        reader: The layer that will read it.
    """
    with keras_internals.undisturbed(reader):
        inputs = keras.Input(batch_shape=value.shape, dtype=value.dtype)
        outputs = keras.layers.Identity(dtype=value.dtype)(inputs)
        model = keras.Model(inputs, outputs, name="with_mask")
    model.supports_masking = True
    return model


def hide(graph):
    """Lets new embeddings carry no masks along, unless outputs do: Keras warns
    where masks end, as in attention, and all that read them have them as
    arguments, or carriers in front."""
    if all(x.mask is None for x in graph.outputs):
        for node in graph.nodes:
            embeds = type(node.op) is keras.layers.Embedding
            node.hides_mask = embeds and node.op.mask_zero


def is_kept(keras_node):
    """Whether an operation returns its very input, with the mask: it casts the
    input of a layer, as Keras does, or to the dtype that it has."""
    op = keras_node.operation
    if getattr(op, "keeps_mask", False):
        return True
    if type(op).__name__ not in ("Cast", "ConvertToTensor"):
        return False
    return keras_node.input_tensors[0].dtype == keras_node.outputs[0].dtype


def _refuse_variables(layer, model):
    """Raises a ValueError if masks are computed with variables, which a copy
    would share with the original."""
    if keras_internals.computes_with_variables(model):
        raise ValueError(
            f"The masks of {layer.name!r} cannot be rebuilt. Expected a "
            "`compute_mask` that computes with its arguments alone. Received: "
            "one that computes with a variable"
        )


def _takes_masks(op):
    """Whether a layer is Keras's attention, which reads the masks of tensors,
    and takes them away from these."""
    kind = keras.layers.MultiHeadAttention
    return isinstance(op, kind) and type(op).call is kind.call


def _unseen(given):
    """Dict from arguments that Keras fills in with masks to these.

    Args:
        given: Dict from arguments of `call` to their values.
    """
    tensors = {name: x for name, x in given.items() if _is_tensors(x)}
    named = {
        "mask" if len(tensors) == 1 else f"{name}_mask": tree.map_structure(
            _mask, x
        )
        for name, x in tensors.items()
    }
    return {
        name: masks
        for name, masks in named.items()
        if name in given and given[name] is None and _any(masks)
    }


def _bound(op, args, kwargs):
    """Dict from all arguments of a layer's `call` to their values."""
    signature = inspect.signature(op.call)
    accepted = {x: y for x, y in kwargs.items() if x in signature.parameters}
    # A graph may leave out `training`, which some layers require.
    bound = signature.bind_partial(*args, **accepted)
    bound.apply_defaults()
    return bound.arguments


def _begins(layer):
    """Whether a layer may make a mask of inputs that have none."""
    if isinstance(layer, keras.layers.Embedding | keras.layers.Masking):
        return True
    own = type(layer).compute_mask is not keras.Layer.compute_mask
    return own and not type(layer).__module__.startswith("keras.")


def _is_value(x):
    return isinstance(x, Value)


def _is_tensors(x):
    """Whether an argument is a tensor or a structure of tensors."""
    leaves = tree.flatten(x) if tree.is_nested(x) else [x]
    found = [y for y in leaves if y is not None]
    return bool(found) and all(map(_is_value, found))


def _mask(x):
    return x.mask if _is_value(x) else None


def _any(masks):
    return any(x is not None for x in tree.flatten(masks))
