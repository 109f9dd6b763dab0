"""All uses of private names of Keras, in one place.

`tests/keras_internals_test.py` fails with a version of Keras that moves one of
them.
"""

import collections
import contextlib
import inspect
import random
import types
from typing import Any

import keras
import numpy as np
from keras.src.activations import activations
from keras.src.backend.common import global_state
from keras.src.backend.common.masking import get_keras_mask as get_keras_mask
from keras.src.backend.common.masking import set_keras_mask as set_keras_mask
from keras.src.layers import layer as base_layer
from keras.src.ops import node
from keras.src.ops import numpy as keras_numpy

# The classes of operations, such as `Matmul`.
operations = keras_numpy

# Steps of a schedule at which its learning rate is read.
LOOKED_AT = 21


def exempt_from_weight_decay(optimizer, variables):
    """Exempts variables from weight decay, in addition to those exempt already.

    The public `exclude_from_weight_decay` would forget the user's exclusions,
    and refuses a built optimizer.
    """
    for part in optimizers_in(optimizer):
        excluded: set = getattr(part, "_exclude_from_weight_decay", set())
        part._exclude_from_weight_decay = excluded.union(
            part._var_key(variable) for variable in variables
        )
        part._exclude_from_weight_decay_cache = {}


def average_overwritten_variables(optimizer, variables):
    """Adds averages of the variables that their gradients overwrite.

    With `use_ema=True` Keras keeps no averages of these variables, and fails
    when it swaps all variables with their averages, or finally overwrites them.

    Args:
        optimizer: `keras.optimizers.Optimizer`; built here if necessary.
        variables: List of all variables that it updates.
    """
    if not optimizer.built:
        optimizer.build(variables)
    for part in optimizers_in(optimizer):
        averages: list = getattr(part, "_model_variables_moving_average", [])
        for i, average in enumerate(averages):
            if average is None:
                variable = part._trainable_variables[i]
                averages[i] = _average_of(part, variable)


def _average_of(optimizer, variable):
    if keras.backend.backend() != "tensorflow":
        # A variable may be its own average: replacing or swapping is a no-op.
        return variable
    # TensorFlow swaps by sums and differences, which needs two variables. The
    # optimizer does not track the average: saved optimizers lack it.
    with optimizer._distribution_strategy.scope():
        average = optimizer.add_variable_from_reference(
            variable, name="average"
        )
    optimizer._untrack_variable(average)
    # A mean of the variable's values over steps would be meaningless.
    average.assign = lambda _: type(average).assign(average, variable)
    return average


def batches_per_step(optimizer):
    """Number of batches whose gradients are accumulated for one step."""
    return max(
        x.gradient_accumulation_steps or 1 for x in optimizers_in(optimizer)
    )


def optimizers_in(optimizer):
    """List of an optimizer and the optimizers that it wraps or combines."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return [optimizer, *getattr(optimizer, "optimizers", ())]


def optimizer_of(optimizer, variable):
    """The optimizer that updates a variable, if one combines several."""
    first, *others = optimizers_in(optimizer)
    for part in others:
        known = getattr(part, "_trainable_variables", ())
        if any(x is variable for x in known):
            return part
    return others[0] if others else first


def learning_rate(optimizer, variable, steps):
    """The largest learning rate of a variable within a number of steps, float.

    Args:
        optimizer: `keras.optimizers.Optimizer`.
        variable: The variable.
        steps: Number of steps, or infinity where it is unknown.
    """
    part = optimizer_of(optimizer, variable)
    schedule = part._learning_rate
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        last = steps if np.isfinite(steps) else 1
        points = np.linspace(0, last, LOOKED_AT)
        rates = [keras.ops.convert_to_numpy(schedule(int(x))) for x in points]
        return float(max(rates))
    return float(keras.ops.convert_to_numpy(part.learning_rate))


def build_shapes(layer):
    """Dict from names to the shapes for which a layer was built, or None."""
    return layer._build_shapes_dict


def nodes_in_order(model):
    """The calls of a Functional model, each after those it reads from."""
    by_depth = model._nodes_by_depth
    return [
        node
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


@contextlib.contextmanager
def undisturbed(layer):
    """A context in which a layer's `call` may run on symbolic tensors.

    Afterwards, automatic names and random seeds of layers that the user creates
    and the inbound nodes of the sublayers, and so `Layer.output`, are as if the
    context had not existed. Names in the context do not depend on layers
    created before, and all sublayers have distinct names.
    """
    inside = layers_inside(layer)
    names = global_state.get_global_attribute("object_name_uids")
    random_state = random.getstate()
    old = [(x, x.name) for x in inside]
    nodes = [
        (x, len(x._inbound_nodes), len(x._outbound_nodes))
        for x in (layer, *inside)
    ]
    counts: dict = collections.defaultdict(int)
    global_state.set_global_attribute("object_name_uids", counts)
    taken: set = set()
    for x in inside:
        copies = 0
        while x.name in taken:
            copies += 1
            x.name = f"{x.name}_{copies}"
        taken.add(x.name)
        base, _, number = x.name.rpartition("_")
        if not number.isdigit():
            base, number = x.name, "0"
        counts[base] = max(counts[base], int(number) + 1)
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", names)
        random.setstate(random_state)
        for x, name in old:
            x.name = name
        for x, inbound, outbound in nodes:
            del x._inbound_nodes[inbound:]
            del x._outbound_nodes[outbound:]


@contextlib.contextmanager
def none_beside_tensors():
    """A context in which layers that return None beside tensors may be called
    on symbolic tensors: in the graph, they return the tensors alone.

    Yields:
        List to which the calls of such layers are added, as nodes of the graph.
    """
    found = []

    def make(operation, call_args, call_kwargs, outputs):
        flat = keras.tree.flatten(outputs)
        tensors = [x for x in flat if x is not None]
        complete = not tensors or len(tensors) == len(flat)
        made = node.Node(
            operation=operation,
            call_args=call_args,
            call_kwargs=call_kwargs,
            outputs=outputs if complete else tensors,
        )
        if not complete:
            found.append(made)
        return made

    base_layer.Node = make
    try:
        yield found
    finally:
        base_layer.Node = node.Node


@contextlib.contextmanager
def symbolic_activations():
    """A context in which `hard_silu`, `mish` and `sparsemax` run on symbolic
    tensors: in `keras.activations`, they convert these to arrays."""
    backend = activations.backend

    def convert(x):
        symbolic = isinstance(x, keras.KerasTensor)
        return x if symbolic else backend.convert_to_tensor(x)

    changed = {"convert_to_tensor": convert, "nn": keras.ops}
    activations.backend = types.SimpleNamespace(**vars(backend) | changed)
    try:
        yield
    finally:
        activations.backend = backend


def teacher_extractor(distiller):
    """The model of the teacher's features that losses read, or None."""
    return distiller._teacher_feature_extractor


def student_extractor(distiller):
    """The model of the student's features that losses read, or None."""
    return distiller._student_feature_extractor


def teacher_features(distiller, x):
    """Dict from layer name to the teacher's features in inference; its outputs
    are at `"final_output"`."""
    return distiller._extract_all_teacher_features(x)


def compiled_loss(model, y, y_pred, sample_weight):
    """The loss given to `compile`, scalar tensor, without added losses."""
    return model._compile_loss(y, y_pred, sample_weight)


def added_loss(model, loss):
    """A loss added by a layer, scaled for the replicas of `tf.distribute`."""
    return model._aggregate_additional_loss(loss)


def maker_of(tensor):
    """The operation or layer that produced a symbolic tensor."""
    return tensor._keras_history.operation


def read_by_maker(tensor):
    """List of the symbolic tensors from which a symbolic tensor was made."""
    made = tensor._keras_history
    return made.operation._inbound_nodes[made.node_index].input_tensors


def computes_with_variables(model):
    """Whether a variable is an argument of a call in a Functional model."""
    return any(
        isinstance(x, keras.Variable)
        for op in model.operations
        for node in op._inbound_nodes
        for x in keras.tree.flatten(
            (node.arguments.args, node.arguments.kwargs)
        )
    )


def first_arguments(op):
    """Pair of the arguments, list and dict, of an operation's first call."""
    arguments = op._inbound_nodes[0].arguments
    return arguments.args, arguments.kwargs


def autocasts(variable):
    """Whether a variable is cast in layers of mixed precision."""
    return variable._autocast


def graph_of(sequential):
    """The Functional model of a `keras.Sequential`; None if it is not built."""
    return getattr(sequential, "_functional", None)


def structures(model):
    """Pair of the inputs and the outputs of a Functional model, nested."""
    return model._inputs_struct, model._outputs_struct


def layers_inside(layer):
    """List of all layers that a layer contains, at any depth."""
    return layer._flatten_layers(include_self=False)


def infers_shapes():
    """Whether Keras is inferring shapes by calls on placeholders."""
    return global_state.get_global_attribute("symbolic_scope") is not None


def normalized_axes(normalization):
    """Tuple of the axes along which a `keras.layers.Normalization` keeps
    separate statistics."""
    return normalization._keep_axis


def mend_trainer(strategy):
    """Makes Keras's trainer on TensorFlow work under a strategy of several
    hosts (Keras issue 20585). The trainer builds a model on the mean over the
    replicas of a batch, which several hosts do not have, and averages the logs
    along axis 0, which scalars lack.

    Raises:
        ValueError: If the trainer is not like that of Keras 3.15.
    """
    from keras.src.backend.tensorflow import trainer

    kind = trainer.TensorFlowTrainer
    build: Any = getattr(kind, "_maybe_symbolic_build", None)
    reduce: Any = getattr(trainer, "reduce_per_replica", None)
    expected = (
        (build, ["self", "iterator", "data_batch"]),
        (reduce, ["values", "strategy", "reduction"]),
    )
    for function, names in expected:
        if not function or [*inspect.signature(function).parameters] != names:
            raise ValueError(
                "This Keras is not known to train on several hosts. Expected "
                "a trainer like that of Keras 3.15, or another strategy. "
                f"Received: Keras {keras.__version__}"
            )
    mended = strategy

    def first(value):
        return mended.experimental_local_results(value)[0]

    def build_on_one_replica(self, iterator=None, data_batch=None):
        if iterator is not None and self.distribute_strategy is mended:
            for _, _, batches in iterator:
                data_batch = keras.tree.map_structure(first, next(batches))
                break
            iterator = None
        return build(self, iterator, data_batch)

    def reduce_over_hosts(values, strategy, reduction):
        if strategy is not mended or reduction not in ("auto", "mean"):
            return reduce(values, strategy, reduction)
        return keras.tree.map_structure(
            lambda x: mended.reduce("MEAN", x, axis=None), values
        )

    kind._maybe_symbolic_build = build_on_one_replica
    trainer.reduce_per_replica = reduce_over_hosts
