"""Compaction: building the smaller network."""

import dataclasses

import keras

from keras_bar.analysis import replaying
from keras_bar.analysis.residual_groups import check_connectivity
from keras_bar.analysis.residual_groups import unite
from keras_bar.analysis.rules.base import to_numpy
from keras_bar.budget import alignment
from keras_bar.compaction import folding
from keras_bar.compaction.building import Builder
from keras_bar.compaction.hard_pruning import fix_gates
from keras_bar.compaction.hard_pruning import warn_above_budget
from keras_bar.compaction.loading import warn_unless_loadable
from keras_bar.compaction.resolved_channels import ResolvedChannels

MIXED_ADDITIONS = ("operations", "layer")


def compact(
    model: keras.Model,
    *,
    connectivity: str = "mixed",
    mixed_addition: str = "operations",
    align: int = 1,
    fold_batch_norm: bool = False,
    allow_unfinished: bool = False,
) -> keras.Model:
    """Builds the small network that remains of a gated one.

    Dead channels are removed together with everything that only serves them.
    Constants are folded into biases and batch normalization, and the gates'
    values into the weights. In inference the result equals
    `hard_prune(model)`. It only contains Keras's own layers and operations, so
    its file loads without this package, unless the model calls functions of
    the backend, such as `tf.image.resize`: then it needs `import keras_bar`.

    Args:
        model: Gated `keras.Model`. It is not changed.
        connectivity: `"mixed"`: the identity and the branch of a residual
            block keep their own channels. `"regular"`: all writers of a
            residual stream keep the union of their channels; more is computed,
            with ordinary additions.
        mixed_addition: Form of an addition whose sides keep different
            channels. `"operations"`: slice, pad, take and add, which multiply
            nothing and load anywhere. `"layer"`: one
            `keras_bar.layers.MixedResidual`, whose file needs
            `import keras_bar`. In TensorFlow without XLA the layer is faster
            if few channels are scattered over large images; no cost counts
            its multiplications by 0 and 1.
        align: Integer; in every gate with at least as many open channels, the
            weakest are closed until a multiple of it is left, for kernels that
            compute channels in blocks. The cost falls, and so may the
            accuracy: `keras_bar.explain` lists what was closed. The `align` of
            `BudgetRegularizer` uses the budget instead. Defaults to 1.
        fold_batch_norm: Boolean, whether to fold batch normalization into
            the convolutions and dense layers in front of it, as
            `keras_bar.fold_batch_norm` does. The result is for inference, not
            for fine-tuning, and has fewer parameters than
            `keras_bar.measure_cost` predicts. Defaults to False.
        allow_unfinished: Boolean, whether gates may still be learning and the
            cost may exceed the budget. Defaults to False.

    Returns:
        A Functional `keras.Model` without gates.

    Raises:
        ValueError: If the model has no gates, pruning is unfinished, no path
            from input to output is left, or an argument is wrong.

    Example:

    >>> model = keras.Sequential([
    ...     keras.Input((8, 8, 1)),
    ...     keras.layers.Conv2D(8, 3, name="conv"),
    ...     keras.layers.ReLU(),
    ...     keras.layers.GlobalAveragePooling2D(),
    ...     keras.layers.Dense(2),
    ... ])
    >>> student = keras_bar.gate(model)
    >>> student.get_layer("conv_gate").set_alive(np.arange(8) < 3)
    >>> small = keras_bar.compact(student)
    >>> small.get_layer("conv").filters
    3
    """
    check_connectivity(connectivity)
    if mixed_addition not in MIXED_ADDITIONS:
        raise ValueError(
            "Unknown mixed addition. Expected one of "
            f"{', '.join(map(repr, MIXED_ADDITIONS))}. "
            f"Received: mixed_addition={mixed_addition!r}"
        )
    alignment.check_align(align)
    if align > 1 and connectivity == "regular":
        raise ValueError(
            "With regular connectivity the union of several gates' channels "
            "stays, which is no multiple. Expected mixed connectivity, or "
            f"align=1. Received: connectivity='regular', align={align}"
        )
    pruned = fix_gates(model, allow_unfinished, align)
    small = _small(pruned, connectivity, mixed_addition)
    if fold_batch_norm:
        explanation = small.explanation
        small = folding.fold_batch_norm(small)
        small.explanation = explanation
    warn_unless_loadable(small, stacklevel=2)
    return small


def _small(pruned, connectivity, mixed_addition):
    """The compact network of a `HardPruned` one."""
    explanation, graph = pruned.explanation, pruned.analysis.graph
    masks = pruned.masks
    if connectivity == "regular":
        masks = unite(pruned.analysis, masks)
        warn_above_budget(pruned.cost_model, masks, pruned.masks)
    # The weights are those of the hard-pruned network from here on.
    pruned.weights.install()
    resolved = ResolvedChannels(pruned.analysis, masks)
    # Later, because gates scale the constants of dead channels themselves.
    folded = _fold_gates(pruned.analysis, pruned.weights)
    pruned.weights.install()
    builder = Builder(resolved, folded, mixed_addition)
    small = replaying.replay(graph, builder.rebuild, finish=builder.finish)
    small.explanation = dataclasses.replace(explanation, **builder.summary())
    return small


def _fold_gates(analysis, weights):
    """Multiplies the gates' values into the weights in front of them, where
    these scale the gate's input.

    Args:
        analysis: `ChannelAnalysis`.
        weights: `OwnWeights`, which it changes.

    Returns:
        Set of the nodes whose gate is folded.
    """
    folded: set = set()
    found: dict = {}  # The gates behind each layer, one per call.
    for node, rule in analysis.rules.items():
        gate, widths = rule.gate(node), rule.width_gate(node)
        if gate is None and widths is None:
            continue
        factors = (gate or widths).fixed_channel_factors()
        producer = _made_by(rule.gated(node), analysis, folded)
        if producer is None:
            continue
        key = producer.shared_calls[0], gate or widths
        behind = found.setdefault(key, [])
        behind.append(node)
        if len(behind) < producer.calls:
            continue
        made = analysis.rules[producer]
        scaled = made.output_weights if gate else made.width_weights
        if not scaled(producer.op, factors):
            continue
        for weight, scale in scaled(weights.own(producer), factors):
            weight.assign(to_numpy(weight) * scale)
        folded.update(behind)
    return folded


def _made_by(value, analysis, folded):
    """The node that makes a tensor, up to gates folded into its weights, for
    its only reader; None if others read it."""
    while True:
        producer = value.producer
        read_once = (
            len(value.consumers) == 1 and value not in analysis.graph.outputs
        )
        known = analysis.channels[value].axis is not None
        if not read_once or not known or producer is None:
            return None
        if producer not in folded:
            return producer
        value = analysis.rules[producer].gated(producer)
