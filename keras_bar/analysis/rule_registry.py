"""The rules of layers and operations.

Those of Keras are registered by name. Those of other packages are registered by
class, because a class of the same name may do anything.
"""

import keras

from keras_bar.analysis.counting import is_known
from keras_bar.analysis.counting import is_known_class as is_known_class

# Rule classes, by whether they hold for a layer or an operation, and its name.
_BY_NAME: dict = {}
# Functions without arguments that make a rule, by class of layer.
_BY_CLASS: dict = {}


def add_kind(is_layer, name, rule):
    """Registers a rule for a kind of Keras's.

    Args:
        is_layer: Whether it is a layer; otherwise a `keras.ops` operation.
        name: Name of its class.
        rule: Subclass of `Rule`.
    """
    _BY_NAME[is_layer, name] = rule


def add_class(kind, make):
    """Registers a rule for a class of another package.

    Args:
        kind: Class of layers or operations.
        make: Function without arguments that returns a `Rule`.
    """
    _BY_CLASS[kind] = make


def kind_named(name):
    """The rule class of the layer or operation of Keras's with a name, or
    None."""
    return _BY_NAME.get((True, name)) or _BY_NAME.get((False, name))


def is_registered(op):
    """Whether a user registered a rule for the class of an operation."""
    return type(op) in _BY_CLASS


def rule_of(op):
    """The rule of the kind of an operation, or None.

    Args:
        op: A layer or a `keras.ops` operation.
    """
    if is_registered(op):
        return _BY_CLASS[type(op)]()
    if not is_known(op):
        return None
    is_layer = isinstance(op, keras.layers.Layer)
    rule = _BY_NAME.get((is_layer, type(op).__name__))
    return rule and rule()
