"""The memory that tensors take while a network runs.

An inference runtime for small devices puts all tensors into one block of
memory, the arena. A tensor occupies its place from the operation that writes it
to the last one that reads it. The model of this file follows LiteRT's arena:

- Operations run one at a time, for one sample, in depth-first order from the
  outputs, operands from left to right.
- Model inputs are stored until they are read for the last time, model outputs
  to the end. Weights, and tensors that depend on no input, are no part of the
  arena.
- A reshaped or flattened tensor is a view of the same memory. So is what
  dropout and other layers return that do nothing in inference.
- Batch normalization, activations and factors work in place if nobody else
  reads their input later. (Runtimes fuse most of them into the layer in front.)
- Slices, pads, transpositions and gathers in a row are one operation. If it
  makes an operand of an addition, it runs when the addition needs it, into a
  temporary tensor as large as the sum. However many operands of the addition
  have to be moved, it needs one temporary tensor.
- Attention that is one operation runs step by step, as compaction writes it
  where features of the heads are pruned: the products of queries and keys,
  their masks, and the sum of the values.

The compact model of a gated network can be run through the same rules without
building it: they say which tensors it has, which ones it moves, and how many
channels these have.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Operation:
    """A step of a `Program`.

    Attributes:
        name: Name of the layer or operation.
        kind: `"in place"`, `"move"`, `"add"` or `"other"`.
        inputs, outputs: Tensors, as lists of integers.
        temporary: Bytes of a tensor that exists during the step alone.
        node: The `Node`.
    """

    name: str
    kind: str
    inputs: list
    outputs: list
    node: object
    temporary: float = 0.0


class Program:
    """The operations of a network in the order in which they run.

    Attributes:
        sizes: List of the bytes of every tensor.
        values: List of the `Value` of every tensor.
        inputs, outputs: The model's, lists of tensors.
        operations: List of `Operation`.
        whole: Set of the tensors that store all channels, dead ones too.
        channels: Dict from tensors to the `Value` whose channels they store, if
            it is not their own.
        per_channel: Dict from tensors to the bytes of each of these channels,
            if they are not those of the `Value`.
    """

    def __init__(self):
        self.sizes = []
        self.values = []
        self.inputs = []
        self.outputs = []
        self.operations = []
        self.whole = set()
        self.channels = {}
        self.per_channel = {}

    def tensor(self, value, size):
        """Adds a tensor and returns its number."""
        self.sizes.append(size)
        self.values.append(value)
        return len(self.sizes) - 1

    def run(self, node, kind, inputs, *sizes):
        """Adds an operation that writes new tensors, and returns them.

        Args:
            node: `Node`.
            kind: See `Operation`.
            inputs: List of tensors; None is a constant.
            *sizes: Pairs of a `Value` and its bytes.
        """
        outputs = [self.tensor(value, size) for value, size in sizes]
        read = [x for x in inputs if x is not None]
        step = Operation(node.name, kind, read, outputs, node)
        self.operations.append(step)
        return outputs

    def finish(self):
        """Brings the operations into order, and joins those that move."""
        self._schedule()
        reads = self._reads()
        made = {x: step for step in self.operations for x in step.outputs}
        dropped = set()
        for step in self.operations:
            if step.kind == "other":
                continue
            for i, x in enumerate(step.inputs):
                maker = made.get(x)
                if maker is None or maker.kind != "move" or reads[x] > 1:
                    continue
                step.inputs[i : i + 1] = maker.inputs
                dropped.add(id(maker))
                if step.kind == "add":
                    step.temporary = self.sizes[step.outputs[0]]
                else:
                    step.kind = "move"
        self.operations = [x for x in self.operations if id(x) not in dropped]
        self._schedule()
        return self

    def readers(self, tensor):
        """Indices of the operations that read a tensor."""
        return [i for i, x in enumerate(self.operations) if tensor in x.inputs]

    def _reads(self):
        """List of how often every tensor is read; outputs once more."""
        counts = [0] * len(self.sizes)
        read = [x for step in self.operations for x in step.inputs]
        for x in read + self.outputs:
            counts[x] += 1
        return counts

    def _schedule(self):
        """Orders the operations depth first; drops those that nobody needs."""
        made = {x: step for step in self.operations for x in step.outputs}
        done, order = set(), []
        stack = [(x, False) for x in reversed(self.outputs)]
        while stack:
            x, is_ready = stack.pop()
            step = made.get(x)
            if step is None or id(step) in done:
                continue
            if is_ready:
                done.add(id(step))
                order.append(step)
                continue
            stack.append((x, True))
            stack += [(y, False) for y in reversed(step.inputs)]
        self.operations = order

    def lifetimes(self):
        """List of the last step that needs every tensor."""
        last = [0] * len(self.sizes)
        for i, step in enumerate(self.operations):
            for x in step.inputs + step.outputs:
                last[x] = i
        for x in self.outputs:
            last[x] = len(self.operations)
        return last

    def stored(self):
        """Pairs of every step and the tensors that are stored during it."""
        last, alive = self.lifetimes(), list(dict.fromkeys(self.inputs))
        for i, step in enumerate(self.operations):
            reused = step.kind == "in place" and i in [
                last[x] for x in step.inputs[:1]
            ]
            yield step, alive + ([] if reused else step.outputs)
            alive = [x for x in [*alive, *step.outputs] if last[x] > i]

    def moments(self):
        """Pairs of every step and the bytes of all tensors during it."""
        return [
            (step, sum(self.sizes[x] for x in tensors) + step.temporary)
            for step, tensors in self.stored()
        ]

    def peak(self):
        """The largest number of bytes; NaN if a size is unknown."""
        inputs = sum(self.sizes[x] for x in set(self.inputs))
        return np.max([inputs, *(size for _, size in self.moments())])
