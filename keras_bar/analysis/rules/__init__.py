"""One rule per layer type: how it treats channels.

To teach the compiler a layer, write a `Rule` and enter it here.
"""

import keras

from keras_bar.analysis.rules import channel_selection
from keras_bar.analysis.rules import channelwise
from keras_bar.analysis.rules import convolutions
from keras_bar.analysis.rules import gates
from keras_bar.analysis.rules import kernels
from keras_bar.analysis.rules import multi_input
from keras_bar.analysis.rules import reshaping
from keras_bar.analysis.rules import weighted
from keras_bar.analysis.rules.base import Boundary
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.layers import ChannelGate

__all__ = ["Boundary", "Rule", "Term", "rule_for"]

_ELEMENTWISE, _SPATIAL = channelwise.Elementwise(), channelwise.Spatial()
_GATE, _SHARED_GATE = gates.Gate(), gates.SharedGate()
_GROUP_PER_CHANNEL = convolutions.GroupPerChannel()
_MERGING = {
    multi_input.Subtract(): "Subtract",
    multi_input.Maximum(): "Maximum",
    multi_input.Minimum(): "Minimum",
    multi_input.Multiply(): "Multiply",
    multi_input.Sum(): "Add",
    multi_input.Concatenate(): "Concatenate",
    reshaping.Reshape(): "Reshape",
}
_CHANNEL_PAD = channel_selection.ChannelPad()
_LAYERS = {
    **_MERGING,
    channelwise.Activation(): "Activation",
    _ELEMENTWISE: "ReLU LeakyReLU ELU",
    _SPATIAL: (
        "MaxPooling1D MaxPooling2D MaxPooling3D "
        "AveragePooling1D AveragePooling2D AveragePooling3D "
        "AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D "
        "AdaptiveAveragePooling1D AdaptiveAveragePooling2D "
        "AdaptiveAveragePooling3D "
        "Cropping1D Cropping2D Cropping3D "
        "UpSampling1D UpSampling2D UpSampling3D "
        "Identity ActivityRegularization GaussianNoise "
        "SpatialDropout1D SpatialDropout2D SpatialDropout3D"
    ),
    channelwise.Dropout(): "Dropout AlphaDropout GaussianDropout",
    channelwise.ZeroPadding(): "ZeroPadding1D ZeroPadding2D ZeroPadding3D",
    channelwise.GlobalPooling(): (
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D "
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D"
    ),
    channelwise.Removed(): "BudgetState",
    weighted.BatchNormalization(): "BatchNormalization",
    weighted.LayerScale(): "LayerScale",
    weighted.Normalization(): "Normalization",
    weighted.PReLU(): "PReLU",
    weighted.Rescaling(): "Rescaling",
    convolutions.Convolution(): "Conv1D Conv2D Conv3D",
    convolutions.TransposedConvolution(): (
        "Conv1DTranspose Conv2DTranspose Conv3DTranspose"
    ),
    convolutions.SeparableConvolution(): "SeparableConv1D SeparableConv2D",
    convolutions.DepthwiseConvolution(): "DepthwiseConv1D DepthwiseConv2D",
    kernels.Dense(): "Dense",
    multi_input.Average(): "Average",
    multi_input.ScaledResidual(): "CustomScaleLayer",
    channel_selection.Mixed(): "MixedResidual",
    reshaping.Flatten(): "Flatten",
}
_OPERATIONS = {
    **_MERGING,
    _ELEMENTWISE: (
        "Relu Relu6 LeakyRelu Elu Celu Selu Gelu Silu Sigmoid LogSigmoid "
        "HardSigmoid HardSilu HardTanh HardShrink SoftShrink TanhShrink "
        "Softplus Softsign Squareplus SparsePlus SparseSigmoid Threshold "
        "Tanh Exp Expm1 Log1p Square Sqrt Abs Absolute Negative Clip Sin Cos "
        "Cast StopGradient"
    ),
    _SPATIAL: "MaxPool AveragePool",
    channelwise.Pad(): "Pad",
    channelwise.Reduction(): "Mean Max",
    channel_selection.Take(): "Take",
    channel_selection.Slice(): "GetItem",
    reshaping.Transpose(): "Transpose",
}
_BY_NAME = {
    is_layer: {
        name: rule for rule, names in table.items() for name in names.split()
    }
    for is_layer, table in ((True, _LAYERS), (False, _OPERATIONS))
}
# With a number instead of a second tensor these are elementwise.
_ARITHMETIC = "Add Subtract Multiply Divide TrueDivide Maximum Minimum Power"


def rule_for(node, analysis):
    """The rule that holds for a node of a graph.

    Args:
        node: `Node`.
        analysis: `ChannelAnalysis` in which the node's inputs are known.

    Returns:
        A `Rule`; a `Boundary` with its reason where none holds.
    """
    kind = type(node.op).__name__
    is_layer = isinstance(node.op, keras.layers.Layer)
    rule = _BY_NAME[is_layer].get(kind)
    if isinstance(node.op, ChannelGate):
        return _checked(_GATE, node, analysis)
    if not is_layer and kind in _ARITHMETIC.split() and len(node.inputs) == 1:
        rule = _ELEMENTWISE
    known = type(node.op).__module__.split(".")[0] in ("keras", "keras_bar")
    if isinstance(rule, multi_input.Multiply) and gates.shared_gate(node):
        rule = _SHARED_GATE
    if isinstance(rule, convolutions.Convolution) and known:
        rule = _GROUP_PER_CHANNEL if _GROUP_PER_CHANNEL.holds(node.op) else rule
    if isinstance(rule, channelwise.Pad) and _CHANNEL_PAD.holds(node, analysis):
        rule = _CHANNEL_PAD
    if rule is None or not known:
        return Boundary(f"no rule knows how {kind} treats channels")
    shares_weights = node.calls > 1 and getattr(node.op, "weights", ())
    if shares_weights:
        return Boundary(f"the model calls it {node.calls} times", rule)
    return _checked(rule, node, analysis)


def _checked(rule, node, analysis):
    """The rule, or a boundary if it refuses the node."""
    if reason := rule.refuse(node, analysis):
        return Boundary(reason, rule)
    return rule
