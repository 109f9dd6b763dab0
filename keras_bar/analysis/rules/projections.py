"""The rule of EinsumDense, which is a dense layer, or a projection from
features to the heads of attention, or back: then the heads are the channels."""

import dataclasses

import numpy as np

from keras_bar.analysis import equations
from keras_bar.analysis import static_shapes
from keras_bar.analysis import trace
from keras_bar.analysis.rules.attended import is_attended
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.base import along
from keras_bar.analysis.rules.base import product
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.analysis.rules.kernels import Dense
from keras_bar.analysis.rules.widths import WHOLE
from keras_bar.analysis.rules.widths import factors as factors_of_widths


class EinsumDense(Dense):
    """EinsumDense that mixes the last axis as `Dense` does, such as
    `"abc,cd->abd"` or `"...x,xy->...y"`; from features to heads,
    `"abc,cde->abde"`; or from heads to features, `"abcd,cde->abe"`. Heads may
    also be in front of the positions, as in `"abc,cde->adbe"`."""

    layers = "EinsumDense"

    def specialized(self, node, analysis):
        kinds = {
            (1, 2): ToHeads(is_attended(node.output) is True),
            (2, 1): FromHeads(),
        }
        return kinds.get(mixed_axes(node.op), self)

    def refuse(self, node, analysis):
        if mixed_axes(node.op) is None:
            biased = ""
            if equations.mixed_axes(node.op.equation):
                biased = f" with bias_axes={node.op.bias_axes!r}"
            return f"no rule knows the equation {node.op.equation!r}{biased}"
        return super().refuse(node, analysis)

    def is_counted(self, node):
        return mixed_axes(node.op) is not None

    def terms(self, node, analysis):
        return super().terms(node, analysis) if self.is_counted(node) else []

    def smallest_input(self, node):
        # Its configuration may fix the sizes.
        return [d or 1 for d in node.inputs[0].shape[1:-1]]

    def has_bias(self, layer):
        return layer.bias is not None

    def bias_config(self, layer, wanted):
        return {"bias_axes": layer.equation.strip()[-1] if wanted else None}

    def size_config(self, node, writes):
        shape = static_shapes.full_shape_of(node)
        return {"output_shape": (*shape[:-1], len(writes))}


class ToHeads(EinsumDense):
    """A projection from features to heads. Dead features are restored.

    Args:
        prunable: Whether it makes what the heads give, not how they weigh it.
    """

    folds_constants = False
    output_axis = -2  # Of the kernel.

    def __init__(self, prunable):
        self.prunable = prunable

    def specialized(self, node, analysis):
        return self

    def axis(self, node, value):
        makes = value is node.output
        return len(value.shape) + (axis_of_heads(node.op) if makes else -1)

    def restored_inputs(self, node, analysis):
        return [0] if analysis.removable(node.inputs[0]) else []

    def propagate_alive(self, node, analysis):
        axis = self.axis(node, node.output)
        return [analysis.all_alive(node.output, axis)]

    def reads_patches(self, layer):
        return False  # The heads do not share a kernel `(weights, filters)`.

    def gains_bias(self, node, analysis):
        return None

    def terms(self, node, analysis):
        output = node.output
        reads, writes = self.factors(node, analysis)
        size, widths = factors_of_widths(output, analysis)
        places = product(_places(output.shape, node.op))
        terms = [
            Term("flops", 2 * places * size, (reads, writes, *widths)),
            Term("params", size, (reads, writes, *widths)),
        ]
        if self.has_bias(node.op):
            terms.append(Term("params", size, (writes, *widths)))
        if not analysis.becomes_output(output):
            terms.append(Term("volume", places * size, (writes, *widths)))
        return terms

    def size_config(self, node, writes):
        shape = [*static_shapes.full_shape_of(node)]
        shape[axis_of_heads(node.op)] = len(writes)
        return {"output_shape": tuple(shape)}

    def rebuild(self, node, builder):
        writes = builder.order[node.output]
        widths = builder.widths(node.output)
        shape = self.size_config(node, writes)["output_shape"]
        new = builder.clone(node, output_shape=(*shape[:-1], len(widths)))
        tensors = {node.inputs[0]: builder.restored(node.inputs[0])}
        outputs = trace.call(new, node, tensors)
        kernel = to_numpy(node.op.kernel)[:, writes]
        new.kernel.assign(kernel[..., widths])
        if self.has_bias(node.op):
            bias = to_numpy(node.op.bias)
            bias = np.take(bias, writes, axis=axis_of_heads(node.op))
            new.bias.assign(bias[..., widths])
        return outputs

    def output_weights(self, layer, factors):
        if super().output_weights(layer, factors):
            bias = []
            if self.has_bias(layer):
                axis, rank = axis_of_heads(layer), len(layer.bias.shape)
                bias = [(layer.bias, along(factors, axis, rank))]
            return [(layer.kernel, factors[:, None]), *bias]
        return []

    def operand(self, node, index, writer):
        return writer.whole(node, node.inputs[index])

    def width_weights(self, layer, factors):
        """Like `output_weights`, to multiply the features of all heads by
        factors `(widths,)`."""
        if super().output_weights(layer, factors):
            bias = [(layer.bias, factors)] if self.has_bias(layer) else []
            return [(layer.kernel, factors), *bias]
        return []


class FromHeads(EinsumDense):
    """A projection from heads to features."""

    input_axis = -3  # Of the kernel.

    def specialized(self, node, analysis):
        return self

    def axis(self, node, value):
        makes = value is node.output
        return len(value.shape) + (-1 if makes else axis_of_heads(node.op))

    def smallest_input(self, node):
        sizes = node.inputs[0].shape
        return [d or 1 for d in (*_places(sizes, node.op), sizes[-1])]

    def terms(self, node, analysis):
        size, widths = factors_of_widths(node.inputs[0], analysis)
        return [
            dataclasses.replace(
                x,
                coefficient=x.coefficient * size,
                factors=(*x.factors, *widths),
            )
            if len(x.factors) == 2
            else x
            for x in super().terms(node, analysis)
        ]

    def output_sizes(self, node, array):
        return _places(array.shape, node.op)

    def patches(self, node, array, places):
        array = np.moveaxis(array, axis_of_heads(node.op), -2)
        return array[places].reshape(len(places[0]), -1)

    def forget(self, layer, dead):
        kernel = to_numpy(layer.kernel)
        kernel[dead] = 0.0
        layer.kernel.assign(kernel)

    def rebuild(self, node, builder):
        value, writes = node.inputs[0], builder.order[node.output]
        heads, widths = builder.order[value], builder.widths(value)
        if heads is None:
            heads = np.arange(value.shape[self.axis(node, value)])
        new = builder.clone(node, **self.size_config(node, writes))
        outputs = trace.call(new, node, {value: builder.tensors[value]})
        self.assign(node.op, new, heads, writes, widths)
        return outputs

    def assign(self, old, new, reads, writes, widths=WHOLE):
        kernel = to_numpy(old.kernel)[reads][:, widths]
        new.kernel.assign(kernel[..., writes])
        if self.has_bias(old):
            new.bias.assign(to_numpy(old.bias)[writes])


def mixed_axes(layer):
    """How many axes an `EinsumDense` sums over, and how many it makes of them;
    None if no rule knows its equation, or its bias."""
    _, kernel, _ = equations.labels(layer.equation)
    mixed = equations.mixed_axes(layer.equation)
    known = mixed and layer.bias_axes in (None, kernel[mixed[0] :])
    return mixed if known else None


def axis_of_heads(layer):
    """The axis of the heads, counted from the last one, in what an
    `EinsumDense` from or to heads reads or makes."""
    return equations.axis_of_heads(layer.equation)


def _places(shape, layer):
    """Sizes of the axes of positions of a tensor of heads."""
    sizes = [*shape]
    del sizes[axis_of_heads(layer)]
    return tuple(sizes[1:-1])
