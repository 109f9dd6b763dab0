"""Names of a model's outputs: those of the operations that make them."""

import keras


def output_names(outputs):
    """The names under which Keras knows tensors as outputs of a model."""
    return [x._keras_history.operation.name for x in outputs]


def name_outputs(inputs, outputs, names, fresh_name):
    """Gives the outputs of a model that is being built their names.

    An operation keeps the name it has; behind one that is not named like the
    output an `Identity` is put that is. Several outputs may share a name, as
    those of one layer do; these keep other names if their dtypes differ.

    Args:
        inputs, outputs: Symbolic tensors, flat.
        names: Strings, one per output.
        fresh_name: Function from a name to one that nothing has yet.

    Returns:
        List of tensors, like `outputs`.
    """
    outputs = list(outputs)
    groups: dict = {}
    for i, pair in enumerate(zip(names, output_names(outputs), strict=True)):
        groups.setdefault(pair[0], {})[i] = pair[1]
    wrong = {x: list(y) for x, y in groups.items() if {*y.values()} != {x}}
    if not wrong:
        return outputs
    operations = keras.Function(inputs, outputs).operations
    named = {x.name: x for x in operations}
    for name, places in wrong.items():
        tensors = [outputs[i] for i in places]
        dtypes = {x.dtype for x in tensors}
        if len(dtypes) > 1:
            continue  # A layer would cast them to its own.
        if name in named:
            named[name].name = fresh_name(name)
        identity = keras.layers.Identity(name=name, dtype=dtypes.pop())
        for i, tensor in zip(places, identity(tensors), strict=True):
            outputs[i] = tensor
    return outputs
