"""The place of a gate."""

import dataclasses

from keras_bar.analysis import trace
from keras_bar.analysis.grouping import Grouping


@dataclasses.dataclass(frozen=True)
class Placement:
    """The place of the gate of a layer, or why it has none.

    Attributes:
        name: Name of the layer.
        node: Its `Node`; None if it is inside another layer.
        value: `Value` that the gate multiplies, or None.
        reason: Why there is no gate; empty if there is one.
        gated: Whether it has a gate already.
        axis: Index of the axis of the gate, if this is not that of channels but
            that of the widths of heads.
        grouping: How the channels share factors, `Grouping`; None if each has
            one of its own.
        front: Pair of the `Node` of a convolution in groups, whose gate closes
            whole groups of these channels, too, and of the `Value` that would
            have the gate otherwise; or None.
    """

    name: str
    node: trace.Node | None = None
    value: trace.Value | None = None
    reason: str = ""
    gated: bool = False
    axis: int | None = None
    grouping: Grouping | None = None
    front: tuple | None = None
