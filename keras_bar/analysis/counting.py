"""Which layers multiply and add what no cost counts.

FLOPs are the multiply-adds of convolutions and matrix products. Not counted
is a layer that may do some and whose rule does not say how many:

- a layer or an operation that is not Keras's own, and a `Lambda`: nobody
  knows what it does;
- a layer of Keras without a rule that holds other layers (attention,
  recurrence, wrappers) or a kernel (`EinsumDense`), or multiplies matrices
  (`Dot`);
- an operation that multiplies matrices, convolves, decomposes, transforms, or
  runs a function of the user's.

Activations, normalization, pooling, resampling, look-ups and whatever else
works number by number, or moves numbers about, multiply no matrices.
"""

import keras

from keras_bar.analysis.rules import Boundary
from keras_bar.analysis.rules.channel_selection import Mixed

# Layers of Keras without a rule, a kernel and layers of their own.
_MULTIPLYING_LAYERS = "AdditiveAttention Attention Dot Lambda MelSpectrogram"
# Their weights are looked up, or scale number by number.
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
    """The layers that multiply and add what no cost counts.

    Args:
        analysis: `ChannelAnalysis` of a graph.

    Returns:
        Dict from the name of a layer to its type.
    """
    return {
        node.name: type(node.op).__name__
        for node, rule in analysis.rules.items()
        if any(x in analysis.needed for x in node.outputs)
        and _is_uncounted(node, rule)
    }


def listed(layers, limit=None):
    """Layers and their types as text.

    Args:
        layers: Dict from name to type.
        limit: Integer, how many are named; by default all.
    """
    names = [f"{name} ({kind})" for name, kind in layers.items()]
    if limit is not None and len(names) > limit:
        names[limit:] = [f"and {len(names) - limit} more"]
    return ", ".join(names)


def _is_uncounted(node, rule):
    op, kind = node.op, type(node.op).__name__
    if isinstance(rule, Boundary):
        rule = rule.rule
    if isinstance(rule, Mixed):
        rank = len(node.output.shape)
        return any(op.is_product(indices, rank) for indices in op.indices)
    if rule is not None:
        return False
    if type(op).__module__.split(".")[0] not in ("keras", "keras_bar"):
        return True
    if not isinstance(op, keras.layers.Layer):
        return kind in _MULTIPLYING_OPERATIONS.split()
    if kind in _WEIGHTED_LAYERS.split():
        return False
    has_kernel = any(len(weight.shape) > 1 for weight in op.weights)
    return kind in _MULTIPLYING_LAYERS.split() or has_kernel or bool(op._layers)
