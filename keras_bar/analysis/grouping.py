"""Channels of several groups that share the factors of a gate."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Grouping:
    """How the channels of several groups share the factors of a gate.

    Attributes:
        groups: Integer, number of groups, equally many channels in each.
        whole_groups: Whether each group has a factor, or each place in a group.
    """

    groups: int
    whole_groups: bool
