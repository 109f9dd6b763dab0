"""Symbolic calls of layers written in Python, as Functional models."""

import contextlib
import functools
import inspect

import keras
from keras import ops
from keras import tree

from keras_bar import keras_internals
from keras_bar.analysis import added_losses
from keras_bar.analysis import batch_sizes
from keras_bar.analysis import comparing
from keras_bar.analysis import dispatching
from keras_bar.analysis import kinds
from keras_bar.analysis import masks
from keras_bar.analysis import operators
from keras_bar.analysis import own_kernels
from keras_bar.analysis import products
from keras_bar.analysis import replaying
from keras_bar.analysis import rule_registry
from keras_bar.analysis import static_shapes
from keras_bar.analysis.counting import is_known
from keras_bar.analysis.replacing import replaced
from keras_bar.layers import Parameter
from keras_bar.layers.backend_function import NotDescribed

# Keras's own layers that consist of others.
COMPOSED = (
    keras.layers.Lambda,
    keras.layers.MultiHeadAttention,
    keras.layers.GroupQueryAttention,
    keras.layers.TimeDistributed,
)


class Opaque(Exception):
    """A layer cannot be unrolled, for the reason given."""


class DoesNotRun(Opaque):
    """Its call, or its graph, does not run. It may compute with the size of the
    batch."""


def is_candidate(op):
    """Whether an operation may hide a graph: a layer of the user's that has no
    rule, a `Lambda`, attention, or an activation by a function that has no
    name. Keras's other layers consist of no others, or have a rule."""
    if not isinstance(op, keras.Layer) or kinds.is_functional(op):
        return False
    if rule_registry.is_registered(op):
        return False
    if isinstance(op, COMPOSED) or not is_known(op):
        return True
    return type(op) is keras.layers.Activation and not _is_named(op)


def _is_named(activation):
    """Whether Keras can find the function of an `Activation` by its name, which
    is all that the configuration says about it."""
    try:
        type(activation).from_config(activation.get_config())
    except Exception:  # Keras raises several types.
        return False
    return True


def is_spec(x):
    """Whether something is a symbolic tensor."""
    return isinstance(x, keras.KerasTensor)


def own_variables(layer):
    """Dict from attribute to the variables that a layer created for itself:
    weights, and integers such as indices of positions.

    Raises:
        Opaque: If the graph of its sublayers would leave out something else.
    """
    inside = {
        id(x)
        for sublayer in keras_internals.layers_inside(layer)
        for x in sublayer.variables
    }
    own = [x for x in layer.variables if id(x) not in inside]
    found = {
        name: x
        for name, x in vars(layer).items()
        if any(x is variable for variable in own) and _is_plain(x)
    }
    for x in own:
        if not any(x is y for y in found.values()):
            acted_upon = x.regularizer or x.constraint
            but = ", with a regularizer or constraint" if acted_upon else ""
            raise Opaque(f"it has a variable of its own, {x.name!r}{but}")
    if getattr(layer, "activity_regularizer", None) is not None:
        raise Opaque("it has an activity regularizer")
    if isinstance(layer, keras.layers.Lambda):
        captured = inspect.getclosurevars(layer.function)
        for name, value in {**captured.nonlocals, **captured.globals}.items():
            if isinstance(value, keras.Layer | keras.Variable):
                raise Opaque(f"its function uses {name!r} from outside")
    return found


def _is_plain(variable):
    """Whether a variable is a weight that nothing but the loss acts upon, or
    holds indices."""
    if is_index(variable):
        return True
    acted_upon = variable.regularizer or variable.constraint
    return keras.backend.is_float_dtype(variable.dtype) and not acted_upon


def is_index(variable):
    """Whether a variable holds integers that are not trained. A layer that
    counts something in them assigns them, which it cannot on symbolic
    tensors."""
    return not variable.trainable and "int" in str(variable.dtype)


def trace(layer, args, kwargs, nested, own, sized):
    """The graph of one symbolic call.

    Args:
        layer, args, kwargs, nested: As of `unrolling.unroll`.
        own: Dict from attribute to the layer's own variables.
        sized: Whether to call it on batches of a certain size first; see
            `batch_sizes`.

    Returns:
        The Functional model, with inputs as nested as the first argument or
        flat; the places of its outputs among all that the layer returns; and
        the nodes of layers that return None beside tensors.
    """
    if not sized:
        return _call(layer, args, kwargs, nested, own)
    leaves = tree.flatten((args, kwargs))
    opened = [x.shape[:1] == (None,) for x in leaves if is_spec(x)]
    batch = batch_sizes.PRIME * batch_sizes.divisor((args, kwargs))

    def with_size(x):
        if not is_spec(x) or x.shape[:1] != (None,):
            return x
        return keras.KerasTensor((batch, *x.shape[1:]), x.dtype)

    args, kwargs = tree.map_structure(with_size, (args, kwargs))
    sublayers = keras_internals.layers_inside(layer)
    inner, places, incomplete = _call(layer, args, kwargs, nested, own)
    with (
        keras_internals.undisturbed(layer),
        static_shapes.keep_sizes(sublayers),
        keras_internals.none_beside_tensors(),
    ):
        try:
            inputs, outputs = batch_sizes.released(inner, opened)
            if nested:
                _, struct = keras_internals.structures(inner)
                inputs = tree.pack_sequence_as(args[0], inputs)
                outputs = tree.pack_sequence_as(struct, outputs)
            released = replaying.functional(inputs, outputs, layer.name)
        except Exception as error:  # Whatever the user's code raises.
            raise Opaque(
                f"it depends on the batch: {comparing.first(error)}"
            ) from None
    return released, places, incomplete


def _call(layer, args, kwargs, nested, own):
    """What `trace` returns, for tensors of exactly these shapes."""
    try:
        return _called(layer, args, kwargs, nested, own, with_biases=True)
    except Opaque:
        if not own:
            raise
        # A product may be read with and without a bias.
        return _called(layer, args, kwargs, nested, own, with_biases=False)


def _called(layer, args, kwargs, nested, own, with_biases):
    with keras_internals.undisturbed(layer):
        inputs, args, kwargs = _inputs(layer, args, kwargs, nested)
        outputs, incomplete = _run(
            layer, args, kwargs, own, inputs, with_biases
        )
        flat = [x for x in tree.flatten(outputs) if x is not None]
        places = [i for i, x in enumerate(flat) if is_spec(x)]
        complete = len(places) == len(tree.flatten(outputs))
        if not places or nested and not complete:
            raise Opaque("its `call` returns something other than tensors")
        if nested:
            inputs = tree.pack_sequence_as(args[0], inputs)
        else:
            outputs = [flat[i] for i in places]
        try:
            inner = replaying.functional(inputs, outputs, layer.name)
        except ValueError as error:
            raise Opaque(
                f"its `call` makes no graph of layers: {comparing.first(error)}"
            ) from None
    if keras_internals.computes_with_variables(inner):
        raise Opaque("its `call` computes with variables")
    return inner, places, incomplete


def _inputs(layer, args, kwargs, nested):
    """New symbolic inputs, a flat list; and the arguments of the call with
    these in the place of tensors."""
    inputs = []

    def symbolic(path, x):
        if not is_spec(x):
            return x
        key = path[-1] if nested and isinstance(path[-1], str) else None
        tensor = keras.Input(
            batch_shape=tuple(x.shape),
            dtype=x.dtype,
            name=key and key.replace("/", "_"),
        )
        inputs.append(tensor)
        return _cast(tensor, layer)

    paths = tree.flatten_with_path((args, kwargs))
    new_args, new_kwargs = tree.pack_sequence_as(
        (args, kwargs), [symbolic(path, x) for path, x in paths]
    )
    if "training" in inspect.signature(layer.call).parameters:
        # The mode is that in which the graph will run, not the default.
        new_kwargs.setdefault("training", None)
    masks.attach(layer, new_args, new_kwargs)
    return inputs, new_args, new_kwargs


def _run(layer, args, kwargs, own, inputs, with_biases):
    """What the `call` of a layer returns for symbolic tensors; and the nodes of
    layers that return None beside tensors."""
    sublayers = keras_internals.layers_inside(layer)
    refused: list[str] = []
    try:
        with (
            static_shapes.keep_sizes(sublayers),
            _as_tensors(layer, own, inputs),
            _looked_up(sublayers, inputs),
            _one_by_one(),
            products.are_dense(),
            operators.completed(),
            own_kernels.as_layers(with_biases),
            dispatching.functions_as_operations() as refused,
            added_losses.collected() as losses,
            keras_internals.symbolic_activations(),
            keras_internals.none_beside_tensors() as incomplete,
        ):
            outputs = layer.call(*args, **kwargs)
        return added_losses.attached(outputs, losses), incomplete
    except NotDescribed as error:
        raise Opaque(str(error)) from None
    except Exception as error:  # Whatever the user's code raises.
        if refused:
            raise Opaque(
                f"it calls `{refused[-1]}`, which is none of the functions of "
                "arrays that a graph may contain"
            ) from None
        raise DoesNotRun(
            "its `call` does not run on symbolic tensors: "
            f"{comparing.first(error)}"
        ) from None


@contextlib.contextmanager
def _as_tensors(layer, own, inputs):
    """A context in which a layer's own variables are symbolic tensors, and
    those with indices are constants."""
    attributes = vars(layer)
    for name, x in own.items():
        if is_index(x):
            attributes[name] = ops.convert_to_numpy(x)
            continue
        parameter = Parameter.of(x, layer.dtype_policy)
        attributes[name] = parameter(inputs[0])
    try:
        yield
    finally:
        attributes.update(own)


@contextlib.contextmanager
def _one_by_one():
    """A context in which a `Sequential` may be called on tensors of another
    size than those that it was built for: its layers are called one by one.
    Keras allows that for data, but not for symbolic tensors."""
    original = keras.Sequential.__call__

    def call(self, inputs, *args, **kwargs):
        known = keras_internals.graph_of(self)
        fits = known is None or not is_spec(inputs)
        if fits or _accepts(known.inputs[0].shape, inputs.shape):
            return original(self, inputs, *args, **kwargs)
        for layer in self.layers:
            accepted = inspect.signature(layer.call).parameters
            options = {x: y for x, y in kwargs.items() if x in accepted}
            inputs = layer(inputs, **options)
        return inputs

    with replaced(keras.Sequential, __call__=call):
        yield


def _accepts(expected, given):
    """Whether a tensor has the sizes that a model expects."""
    pairs = zip(expected[1:], given[1:], strict=False)
    return all(size is None or size == found for size, found in pairs)


@contextlib.contextmanager
def _looked_up(sublayers, inputs):
    """A context in which embeddings of constants, such as those of positions,
    are symbolic tensors."""

    def call(layer, indices):
        # Keras infers shapes of layers inside with placeholders.
        if is_spec(indices) or keras_internals.infers_shapes():
            return type(layer).call(layer, indices)
        table = Parameter.of(
            layer.embeddings, layer.dtype_policy, name=layer.name
        )
        return ops.take(table(inputs[0]), indices, axis=0)

    changed = [
        x
        for x in sublayers
        if type(x) is keras.layers.Embedding and x.built and not x.lora_enabled
    ]
    for x in changed:
        x.call = functools.partial(call, x)
    try:
        yield
    finally:
        for x in changed:
            del x.call


def _cast(tensor, layer):
    """A layer's input as `Layer.__call__` would cast it."""
    floating = keras.backend.is_float_dtype(tensor.dtype)
    if layer.autocast and floating and tensor.dtype != layer.compute_dtype:
        tensor = ops.cast(tensor, layer.compute_dtype)
        keras_internals.maker_of(tensor).keeps_mask = True
    return tensor
