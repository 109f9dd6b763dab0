"""Names of a model's outputs: the names of the operations that make them."""

import keras

from keras_bar import keras_internals


def output_names(outputs):
    """The names that Keras gives to tensors as outputs of a model."""
    return [keras_internals.maker_of(x).name for x in outputs]


def name_outputs(inputs, outputs, names, fresh_name):
    """Gives the outputs of a model under construction their names.

    An operation keeps its name. If it is not named like the output, an
    `Identity` with that name follows it. Several outputs may share a name, as
    the outputs of one layer do; they keep other names if their dtypes differ.

    Args:
        inputs, outputs: Symbolic tensors, flat.
        names: Strings, one per output.
        fresh_name: Function from a name to a name that is still free.

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
            continue  # A layer would cast them to its own dtype.
        if name in named:
            named[name].name = fresh_name(name)
        identity = keras.layers.Identity(name=name, dtype=dtypes.pop())
        for i, tensor in zip(places, identity(tensors), strict=True):
            outputs[i] = tensor
    return outputs


def fresh(name, taken):
    """A name like `name` that is not among those taken, a set to which it is
    added."""
    base, copies = name, 0
    while name in taken:
        copies += 1
        name = f"{base}_{copies}"
    taken.add(name)
    return name
