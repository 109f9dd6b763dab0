"""Equations of dense layers, and of projections to and from heads."""


def labels(equation):
    """The labels of the tensor, of the kernel and of the output, with a point
    for an ellipsis."""
    equation = equation.replace(" ", "").replace("...", ".")
    left, _, output = equation.partition("->")
    front, _, kernel = left.partition(",")
    return front, kernel, output


def mixed_axes(equation):
    """How many axes the product of a tensor and a kernel sums over, and how
    many it makes of them: (1, 1) as `Dense`, such as `"abc,cd->abd"`; (1, 2)
    for a projection to heads or (2, 1) for one from heads, `"abc,cde->abde"`
    and `"abcd,cde->abe"`, with the heads behind the positions or in front, and
    the features last. None for any other equation."""
    front, kernel, output = labels(equation)
    for read, written in ((1, 1), (1, 2), (2, 1)):
        reads, writes = kernel[:read], kernel[read:]
        positions = _positions(front, reads)
        if (
            len(writes) == written
            and positions
            and positions == _positions(output, writes)
            and len(set(front + writes)) == len(front + writes)
        ):
            return read, written
    return None


def axis_of_heads(equation):
    """The axis of the heads, counted from the last one, in what a projection
    from or to heads reads or makes."""
    front, kernel, output = labels(equation)
    to_heads = kernel[1] in output
    axes, head = (output, kernel[1]) if to_heads else (front, kernel[0])
    return axes.index(head) - len(axes)


def _positions(axes, features):
    """The labels of the positions, of which heads may be in front; empty unless
    the features come last."""
    last = features[-1:]
    for head in features[:-1]:
        if axes.endswith(head + last):
            return axes[: -len(features)]
        if "." in axes or axes.find(head) < 1:
            return ""
        axes = axes.replace(head, "")
    return axes[:-1] if last and axes.endswith(last) else ""
