"""Layers whose multiply-adds no cost counts.

FLOPs are the multiply-adds of convolutions and matrix products. A layer is
uncounted if it may do some, and its rule does not say how many:

- a layer or an operation that does not belong to Keras, and a `Lambda`: nobody
  knows what it does;
- a Keras layer without a rule that contains other layers (attention,
  recurrence, wrappers) or a kernel (`EinsumDense`), or multiplies matrices
  (`Dot`);
- an operation that multiplies matrices, convolves, decomposes, transforms, or
  runs a function of the user;
- a function of the backend that convolves or multiplies matrices.

Activations, normalization, pooling, resampling, look-ups and everything else
that works elementwise, or only moves numbers, multiply no matrices.
"""

import keras

from keras_bar import keras_internals
from keras_bar.analysis import kinds
from keras_bar.layers.backend_function import BackendFunction

# Keras layers that multiply matrices and have no rule, kernel or sublayer.
_MULTIPLYING_LAYERS = "AdditiveAttention Attention Dot Lambda MelSpectrogram"
# Keras layers whose weights are looked up, or scale elementwise.
_WEIGHTED_LAYERS = (
    "BatchNormalization Embedding GroupNormalization LayerNormalization "
    "LayerScale Normalization PReLU RMSNormalization Rescaling"
)
_MULTIPLYING_OPERATIONS = (
    "Matmul Dot Vdot Vecdot Inner Outer Kron Tensordot Einsum Cross "
    "Conv DepthwiseConv SeparableConv ConvTranspose Convolve Correlate "
    "DotProductAttention CDist Cholesky CholeskyInverse Det Eig Eigh Inv "
    "LuFactor Qr Solve SolveTriangular SVD Lstsq MatrixRank Pinv Logdet "
    "FFT FFT2 IFFT2 RFFT IRFFT STFT ISTFT GaussianBlur SobelEdges SSIM "
    "AssociativeScan Cond ForiLoop Function JVP Map Scan Switch VectorizedMap "
    "WhileLoop"
)


def uncounted(analysis):
    """The layers whose multiply-adds no cost counts.

    Args:
        analysis: `ChannelAnalysis` of a graph.

    Returns:
        Dict from the name of a layer to its type.
    """
    return {
        node.name: kind_of(node.op)
        for node, rule in analysis.rules.items()
        if any(x in analysis.needed for x in node.outputs)
        and not rule.is_counted(node)
    }


def kind_of(op):
    """The name of the kind of an operation, for messages."""
    if isinstance(op, BackendFunction):
        return op.function
    return type(op).__name__


def listed(layers, limit=None):
    """Layers and their types as text.

    Args:
        layers: Dict from name to type.
        limit: Integer, maximum number of layers named. Defaults to all.
    """
    names = [f"{name} ({kind})" for name, kind in layers.items()]
    if limit is not None and len(names) > limit:
        names[limit:] = [f"and {len(names) - limit} more"]
    return ", ".join(names)


def may_multiply(op):
    """Whether an operation without a rule may multiply matrices.

    Args:
        op: A layer or a `keras.ops` operation.
    """
    kind = type(op).__name__
    if isinstance(op, BackendFunction):
        return op.may_multiply
    if not is_known(op):
        return True
    if kinds.is_carrier(op):
        return False
    if not isinstance(op, keras.layers.Layer):
        return kind in _MULTIPLYING_OPERATIONS.split()
    if kind in _WEIGHTED_LAYERS.split():
        return False
    has_kernel = any(len(weight.shape) > 1 for weight in op.weights)
    return (
        kind in _MULTIPLYING_LAYERS.split()
        or has_kernel
        or bool(keras_internals.layers_inside(op))
    )


def is_known(op):
    """Whether an operation is Keras's or this package's own."""
    return is_known_class(type(op))


def is_known_class(kind):
    """Whether a class of operations is Keras's or this package's own."""
    return kind.__module__.split(".")[0] in ("keras", "keras_bar")
