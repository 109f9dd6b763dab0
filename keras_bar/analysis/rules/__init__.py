"""One rule per kind of layer: how it treats channels.

To teach the compiler a kind of layer, write a `Rule`. Nothing else knows it.
"""

from keras_bar.analysis import rule_registry
from keras_bar.analysis import shared_calls
from keras_bar.analysis.rules import attention as attention
from keras_bar.analysis.rules import channel_selection as channel_selection
from keras_bar.analysis.rules import channelwise as channelwise
from keras_bar.analysis.rules import convolutions as convolutions
from keras_bar.analysis.rules import dividing as dividing
from keras_bar.analysis.rules import einsum as einsum
from keras_bar.analysis.rules import gates
from keras_bar.analysis.rules import joining as joining
from keras_bar.analysis.rules import kernels as kernels
from keras_bar.analysis.rules import multi_input as multi_input
from keras_bar.analysis.rules import normalizing as normalizing
from keras_bar.analysis.rules import observed
from keras_bar.analysis.rules import parameters as parameters
from keras_bar.analysis.rules import projections as projections
from keras_bar.analysis.rules import registering
from keras_bar.analysis.rules import reshaping as reshaping
from keras_bar.analysis.rules import selecting as selecting
from keras_bar.analysis.rules import splitting as splitting
from keras_bar.analysis.rules import weighted as weighted
from keras_bar.analysis.rules import width_gates
from keras_bar.analysis.rules.base import Rule
from keras_bar.analysis.rules.base import Term
from keras_bar.analysis.rules.restoring import Boundary
from keras_bar.layers import ChannelGate

__all__ = ["Boundary", "Rule", "Term", "rule_for"]


def rule_for(node, analysis):
    """The rule that holds for a node of a graph.

    Args:
        node: `Node`.
        analysis: `ChannelAnalysis` in which the node's inputs are known.

    Returns:
        A `Rule`; a `Boundary` with its reason where none holds.
    """
    if isinstance(node.op, ChannelGate):
        zone = width_gates.WidthGate.zone_at(node, analysis)
        gate = width_gates.WidthGate(zone) if zone else gates.Gate()
        return _checked(gate, node, analysis)
    rule = rule_registry.rule_of(node.op) or observed.Unknown()
    if not rule_registry.is_registered(node.op):
        return _holding(rule, node, analysis)
    try:
        return _holding(rule, node, analysis)
    except AttributeError as error:
        return Boundary(f"it does not fit its registered rule: {error}")


def _holding(rule, node, analysis):
    """The rule for the very node, or a boundary."""
    rule = rule.specialized(node, analysis)
    if node.shares_weights:
        if reason := analysis.unlike_calls.get(node.shared_calls[0]):
            return Boundary(reason, rule)
        if reason := shared_calls.obstacle(node):
            times = f"the model calls it {node.calls} times"
            return Boundary(f"{times} {reason}", rule)
        rule.folds_constants = node.shared_calls[0] in analysis.folding_calls
    return _checked(rule, node, analysis)


def _checked(rule, node, analysis):
    """The rule, or a boundary if it refuses the node."""
    if reason := rule.refuse(node, analysis):
        return Boundary(reason, rule)
    if rule_registry.is_registered(node.op):
        why = registering.contradiction(rule, node, analysis)
        if why:
            return Boundary(f"its registered rule does not hold; {why}")
    return rule
