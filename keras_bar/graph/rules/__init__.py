"""One rule per layer type: how it treats channels.

To teach the compiler a layer, write a `Rule` and enter it here.
"""

from keras_bar.graph.rules import channelwise
from keras_bar.graph.rules import merging
from keras_bar.graph.rules import mixing
from keras_bar.graph.rules import reshaping
from keras_bar.graph.rules.base import Boundary
from keras_bar.graph.rules.base import Rule
from keras_bar.graph.rules.base import Term

__all__ = ["Boundary", "Rule", "Term", "rule_for"]

_RULES = {
    channelwise.Activation(): "Activation",
    channelwise.Elementwise(): (
        "ReLU LeakyReLU ELU "
        # keras.ops operations
        "Relu Relu6 LeakyRelu Elu Selu Gelu Silu Sigmoid HardSigmoid HardSilu "
        "Softplus Softsign Tanh Mish Exp Square Abs Absolute Negative Clip Sqrt"
    ),
    channelwise.Spatial(): (
        "MaxPooling1D MaxPooling2D MaxPooling3D "
        "AveragePooling1D AveragePooling2D AveragePooling3D "
        "Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D "
        "Identity ActivityRegularization GaussianNoise "
        "SpatialDropout1D SpatialDropout2D SpatialDropout3D"
    ),
    channelwise.SpatialDropout(): "Dropout AlphaDropout GaussianDropout",
    channelwise.ZeroPadding(): "ZeroPadding1D ZeroPadding2D ZeroPadding3D",
    channelwise.GlobalPooling(): (
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D"
    ),
    channelwise.BatchNormalization(): "BatchNormalization",
    channelwise.LayerScale(): "LayerScale",
    channelwise.PReLU(): "PReLU",
    channelwise.DepthwiseConvolution(): "DepthwiseConv1D DepthwiseConv2D",
    channelwise.Rescaling(): "Rescaling",
    channelwise.Gate(): "HardConcreteGate",
    channelwise.Removed(): "BudgetState",
    mixing.Convolution(): "Conv1D Conv2D Conv3D",
    mixing.TransposedConvolution(): (
        "Conv1DTranspose Conv2DTranspose Conv3DTranspose"
    ),
    mixing.SeparableConvolution(): "SeparableConv1D SeparableConv2D",
    mixing.Dense(): "Dense",
    merging.Add(): "Add",
    merging.Subtract(): "Subtract",
    merging.Average(): "Average",
    merging.Maximum(): "Maximum",
    merging.Minimum(): "Minimum",
    merging.Multiply(): "Multiply",
    merging.Residual(): "CustomScaleLayer",
    merging.Concatenate(): "Concatenate",
    reshaping.Flatten(): "Flatten",
    reshaping.Reshape(): "Reshape",
}
_BY_NAME = {
    name: rule for rule, names in _RULES.items() for name in names.split()
}
_ARITHMETIC = {"Add", "Subtract", "Multiply", "Divide", "TrueDivide"}


def rule_for(node, flow):
    """The rule that holds for a node of a graph.

    Args:
        node: `Node`.
        flow: `Flow`, with the channels of the node's inputs known.

    Returns:
        A `Rule`; a `Boundary` with its reason where none holds.
    """
    kind = type(node.op).__name__
    rule = _BY_NAME.get(kind)
    if kind in _ARITHMETIC and len(node.inputs) == 1:
        rule = _BY_NAME["Relu"]  # Arithmetic with a number is elementwise.
    known = type(node.op).__module__.split(".")[0] in ("keras", "keras_bar")
    if rule is None or not known:
        return Boundary(f"no rule knows how {kind} treats channels")
    if node.calls > 1 and getattr(node.op, "weights", ()):
        return Boundary(f"the model calls it {node.calls} times")
    if reason := rule.refuse(node, flow):
        return Boundary(reason)
    return rule
