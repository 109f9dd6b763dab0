"""Channel shuffles, as of ShuffleNet: the channels are split into groups, the
groups and their members transposed, and joined again. In a graph they are one
selection, whose channels every rule follows."""

import numpy as np

from keras_bar import keras_internals
from keras_bar.analysis.permuting import permutation


def found(nodes, outputs):
    """The channel shuffles in a Functional model.

    Args:
        nodes: List of Keras's nodes, each after those it reads from.
        outputs: List of the model's outputs, symbolic tensors.

    Returns:
        Dict from the id of Keras's node of each last reshape to the symbolic
        tensor that is shuffled, an operation that selects its channels and the
        indices that this takes; and the set of the ids of the nodes in front of
        them, which nobody else reads.
    """
    makers = {id(x): node for node in nodes for x in node.outputs}
    readers: dict = {}
    for node in nodes:
        for x in node.input_tensors:
            readers.setdefault(id(x), []).append(node)
    returned = set(map(id, outputs))
    shuffles, inside = {}, set()
    for last in nodes:
        if type(last.operation).__name__ != "Reshape":
            continue
        chain = [last]
        while len(chain) < 3 and _has_one_input(chain[0]):
            x = chain[0].input_tensors[0]
            only = len(readers[id(x)]) == 1 and id(x) not in returned
            if not only or id(x) not in makers:
                break
            chain.insert(0, makers[id(x)])
        selection = _selection(chain) if len(chain) == 3 else None
        if selection:
            shuffles[id(last)] = chain[0].input_tensors[0], *selection
            inside |= set(map(id, chain[:2]))
    return shuffles, inside


def _has_one_input(node):
    return len(node.input_tensors) == len(node.outputs) == 1


def _selection(chain):
    """The operation that does the same as a reshape, a transposition and a
    reshape, and its indices, if these shuffle channels; otherwise None."""
    kinds = [type(node.operation).__name__ for node in chain]
    moves = kinds[1] in ("Permute", "Transpose")
    if kinds[::2] != ["Reshape", "Reshape"] or not moves:
        return None
    if not all(map(_has_one_input, chain)):
        return None
    before, groups = chain[0].input_tensors[0].shape, chain[0].outputs[0].shape
    after = chain[2].outputs[0].shape
    axis = _split_axis(before, groups)
    if axis is None or before != after:
        return None
    swapped = list(range(len(groups)))
    swapped[axis], swapped[axis + 1] = axis + 1, axis
    if permutation(chain[1].operation, len(groups)) != swapped:
        return None
    indices = np.arange(before[axis]).reshape(groups[axis : axis + 2])
    return keras_internals.operations.Take(axis=axis), indices.T.reshape(-1)


def _split_axis(before, groups):
    """The axis that a reshape splits into two, or None."""
    if None in before[1:] or None in groups[1:] or len(groups) < 3:
        return None
    for axis in range(1, len(before)):
        size, *rest = before[axis:]
        whole = (*before[:axis], *groups[axis : axis + 2], *rest)
        if whole == groups and size == np.prod(groups[axis : axis + 2]):
            return axis
    return None
