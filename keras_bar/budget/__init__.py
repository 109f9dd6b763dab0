"""Pruning to a budget: callbacks, controls, marginal costs and selection."""
