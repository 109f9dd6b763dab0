"""Products with weights that a layer created for itself, as the layers of
Keras's that compute the same: these have rules."""

import contextlib
import weakref

import keras

from keras_bar import keras_internals
from keras_bar.analysis import equations
from keras_bar.analysis.replacing import replaced
from keras_bar.layers import Parameter

# Layers with existing variables, as long as someone uses them: the same for all
# calls of the layer that the variables belong to.
_LAYERS: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


@contextlib.contextmanager
def as_layers(with_biases=True):
    """A context in which the product of a symbolic tensor and a weight is a
    `Dense`, or an `EinsumDense` whose equation a rule knows.

    Args:
        with_biases: Whether a weight that is added to the product becomes the
            bias of the `Dense`.
    """
    operations = keras_internals.operations
    makers = {
        operations.Matmul: _matmul,
        operations.Dot: _matmul,
        operations.Einsum: _einsum,
    }
    if with_biases:
        makers[operations.Add] = _add
    with contextlib.ExitStack() as stack:
        for kind, make in makers.items():
            call = _calling(kind.symbolic_call, make)
            stack.enter_context(replaced(kind, symbolic_call=call))
        yield


def is_product(op):
    """Whether an operation is a layer that stands for such a product."""
    return any(op is x for x in _LAYERS.values())


def _calling(original, make):
    """A symbolic call that makes a layer where it can."""

    def call(operation, *args, **kwargs):
        made = None if kwargs else make(operation, *args)
        if made is not None:
            return made
        return original(operation, *args, **kwargs)

    return call


def _matmul(operation, x, y):
    weight = _kernel(y)
    if weight is None or len(weight.shape) != 2 or not _is_activation(x):
        return None
    return _dense(weight)(x)


def _einsum(operation, *operands):
    left, arrow, output = operation.subscripts.replace(" ", "").partition("->")
    labels = left.split(",")
    if len(operands) != 2 or len(labels) != 2 or not arrow:
        return None
    pairs = list(zip(operands, labels, strict=True))
    for (x, read), (y, kernel) in (pairs, pairs[::-1]):
        weight, equation = _kernel(y), f"{read},{kernel}->{output}"
        if weight is None or not _is_activation(x):
            continue
        if equations.mixed_axes(equation) and len(kernel) == len(weight.shape):
            made = operation.compute_output_spec(*operands).shape
            named = len(output.replace("...", "")) - ("..." not in output)
            shape = made[-named:]
            return _einsum_dense(weight, equation, x.shape, shape)(x)
    return None


def _add(operation, x, y):
    """The layer that made one operand, with the other one as its bias."""
    for product, other in ((x, y), (y, x)):
        bias = _kernel(other)
        if bias is None or not isinstance(product, keras.KerasTensor):
            continue
        layer = keras_internals.maker_of(product)
        plain = isinstance(layer, keras.layers.Dense) and not layer.use_bias
        fits = bias.shape == product.shape[-1:]
        if plain and fits and is_product(layer):
            kernel = Parameter.of(layer.kernel, layer.dtype_policy)
            # Keras sorts the weights of a layer by whether they are trained.
            if kernel.trainable == bias.trainable:
                (read,) = keras_internals.read_by_maker(product)
                return _dense(kernel, bias)(read)
    return None


def _dense(kernel, bias=None):
    inputs, units = kernel.shape

    def make(**options):
        return keras.layers.Dense(units, use_bias=bias is not None, **options)

    weights = [kernel] if bias is None else [kernel, bias]
    return _layer(make, (None, inputs), weights)


def _einsum_dense(weight, equation, inputs, outputs):
    def make(**options):
        return keras.layers.EinsumDense(equation, outputs, **options)

    return _layer(make, inputs, [weight], equation, outputs, len(inputs))


def _layer(make, shape, weights, *key):
    """A layer for inputs of a shape that has existing weights, given as
    `Parameter`s in the order in which it creates its own."""
    key = (*(id(x.value) for x in weights), *key)
    layer = _LAYERS.get(key)
    if layer is None:
        name = f"{weights[0].name}_dense"
        layer = make(name=name, dtype=weights[0].dtype_policy)
        given = iter(weights)
        layer.add_weight = lambda *args, **kwargs: next(given).value
        layer.build(shape)
        del layer.add_weight
        layer = _LAYERS.setdefault(key, layer)
    layer.trainable = weights[0].trainable
    return layer


def _kernel(x):
    """The `Parameter` that returns a weight as it is, if a layer of Keras's
    would create the same; otherwise None."""
    parameter = _parameter(x)
    if parameter is None or parameter.per_sample or parameter.leading:
        return None
    variable, policy = parameter.value, parameter.dtype_policy
    usual = variable.dtype == policy.variable_dtype
    return parameter if usual and keras_internals.autocasts(variable) else None


def _parameter(x):
    if not isinstance(x, keras.KerasTensor):
        return None
    maker = keras_internals.maker_of(x)
    return maker if isinstance(maker, Parameter) else None


def _is_activation(x):
    return isinstance(x, keras.KerasTensor) and _parameter(x) is None
