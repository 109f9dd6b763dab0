"""Experiments: which there are, how they train, how they survive."""
