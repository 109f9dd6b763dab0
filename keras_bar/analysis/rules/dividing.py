"""Rules of division."""

import types

import numpy as np

from keras_bar.analysis.rules.channelwise import Elementwise
from keras_bar.analysis.rules.channelwise import GlobalPooling
from keras_bar.analysis.rules.channelwise import Reduction
from keras_bar.analysis.rules.channelwise import Spatial
from keras_bar.analysis.rules.multi_input import Merge
from keras_bar.analysis.rules.multi_input import Multiply
from keras_bar.analysis.rules.multi_input import has_full_shape
from keras_bar.analysis.rules.reshaping import ExpandDims
from keras_bar.analysis.rules.reshaping import Reshape
from keras_bar.analysis.rules.restoring import unknown

# Rules of layers that map a constant to a constant, whatever the channel.
_ALIKE = (Elementwise, ExpandDims, GlobalPooling, Reduction, Reshape, Spatial)
# Constants that a closed channel of a denominator may hold.
_TRIED = np.linspace(-8.0, 8.0, 33)


class Quotient(Elementwise):
    """Division and powers, of one tensor and a number."""

    operations = "Divide TrueDivide Power"

    def specialized(self, node, analysis):
        several = len(node.inputs) > 1
        divides = type(node.op).__name__ != "Power"
        return Ratio() if several and divides else self

    def refuse(self, node, analysis):
        if len(node.inputs) > 1:
            return unknown(node)
        return super().refuse(node, analysis)


class Ratio(Multiply):
    """A tensor divided by another one: a channel that is 0 in the numerator is
    0 in the ratio. The denominator has a number for all channels, such as a
    temperature or a norm, or is never 0, such as exp(x) + 1."""

    def refuse(self, node, analysis):
        return super().refuse(node, analysis) or self._obstacle(node, analysis)

    def _obstacle(self, node, analysis):
        value = node.inputs[1]
        channels = analysis.channels[value]
        each = channels.axis is not None and channels.size > 1
        if each and not _is_never_zero(value, analysis):
            return "its denominator may be 0 where a channel is closed"
        return None

    def only_scales(self, value, node):
        return value is node.inputs[1] and not has_full_shape(value, node)

    def combine(self, arrays, node):
        numerator, denominator = arrays
        known = (numerator != 0) & (denominator != 0)
        return np.divide(
            numerator, denominator, out=np.zeros(known.shape), where=known
        )

    def rebuild(self, node, builder):
        return Merge.rebuild(self, node, builder)


def _is_never_zero(value, analysis):
    """Whether no closed channel makes a tensor 0, wherever the gate is: on the
    way from the layer that makes the channels, each constant becomes another
    number than 0."""
    way, origin = [], value
    while origin.producer is not None:
        node = origin.producer
        if not isinstance(analysis.rules[node], _ALIKE):
            break
        way.append(node)
        (origin,) = node.inputs
    constants = {origin: _TRIED if way else np.zeros(1)}
    resolved = types.SimpleNamespace(constants=constants)
    for node in reversed(way):
        rule = analysis.rules[node]
        constants[node.output] = rule.constants(node, resolved)
    found = constants[value]
    return bool(np.all(np.isfinite(found) & (found != 0)))
