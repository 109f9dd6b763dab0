"""Everything of Keras that has no public name, in one place.

`tests/keras_internals_test.py` names the version of Keras in which one of these
has moved.
"""

import keras


def exempt_from_weight_decay(optimizer, variables):
    """Exempts variables from weight decay, besides what is exempt already.

    The public `exclude_from_weight_decay` would forget what the user excluded,
    and refuses an optimizer that was built.
    """
    for part in optimizers_in(optimizer):
        excluded: set = getattr(part, "_exclude_from_weight_decay", set())
        part._exclude_from_weight_decay = excluded.union(
            part._var_key(variable) for variable in variables
        )
        part._exclude_from_weight_decay_cache = {}


def average_overwritten_variables(optimizer, variables):
    """Gives variables that are overwritten with their gradients an average.

    With `use_ema=True` Keras keeps none of them, and fails where it swaps all
    variables with their averages, or replaces them by these at the end.

    Args:
        optimizer: `keras.optimizers.Optimizer`, built here if it is not yet.
        variables: List of all that it is to update.
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
        # Its own average: to be replaced by it or swapped with it is nothing.
        return variable
    # TensorFlow swaps by sums and differences, which needs two variables. Not
    # one of the optimizer's: it would have one more than a saved one.
    with optimizer._distribution_strategy.scope():
        average = optimizer.add_variable_from_reference(
            variable, name="average"
        )
    optimizer._untrack_variable(average)
    # The mean of what the variable held in different steps means nothing.
    average.assign = lambda _: type(average).assign(average, variable)
    return average


def batches_per_step(optimizer):
    """Number of batches whose gradients are accumulated for one step."""
    return max(
        x.gradient_accumulation_steps or 1 for x in optimizers_in(optimizer)
    )


def optimizers_in(optimizer):
    """List of an optimizer and those that it wraps or combines."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    return [optimizer, *getattr(optimizer, "optimizers", ())]
