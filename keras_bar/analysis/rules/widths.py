"""Widths: the features that all heads of attention have in common.

The features of a head are a second axis of channels beside the heads. One gate
closes feature i of the values of all heads, and another one feature i of all
queries, whose products with the keys then lose it, too. A `ChannelAnalysis`
knows the widths of the tensors between the layers that make such features and
those that sum over them (`width_zones`).
"""

import dataclasses

from keras_bar.analysis.algebra import Expression

# Index of all widths.
WHOLE = slice(None)


@dataclasses.dataclass(frozen=True)
class Width:
    """The widths of a tensor.

    Attributes:
        axis: Index of their axis.
        size: Their number.
        alive: `Expression`, those that a gate leaves.
    """

    axis: int
    size: int
    alive: Expression


def factors(value, analysis):
    """The widths of a tensor of heads as a part of a cost: a coefficient, and a
    tuple of the factors of a `Term`."""
    width = analysis.widths.get(value)
    if width is None:
        return value.shape[-1], ()
    return 1, ((width.alive, width.size),)


def any_alive(value, analysis):
    """A single value: whether a tensor has any width."""
    width = analysis.widths.get(value)
    algebra = analysis.algebra
    return algebra.full if width is None else algebra.any(width.alive)
