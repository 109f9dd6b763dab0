"""Figures, tables and timings of pruned networks."""

from keras_bar.reports import paper
from keras_bar.reports.curves import Curve
from keras_bar.reports.curves import Panel
from keras_bar.reports.curves import plot_accuracies
from keras_bar.reports.distributions import plot_distributions
from keras_bar.reports.flops import plot_flops
from keras_bar.reports.gate_plots import plot_gates
from keras_bar.reports.histories import read_history
from keras_bar.reports.histories import summarize_pruning
from keras_bar.reports.plotting import plot_budget
from keras_bar.reports.plotting import plot_channels
from keras_bar.reports.sensitivity_plot import plot_sensitivity
from keras_bar.reports.text_tables import comparison_table
from keras_bar.reports.text_tables import format_table
from keras_bar.reports.timing import measure_files
from keras_bar.reports.timing import measure_latency

__all__ = [
    "Curve",
    "Panel",
    "comparison_table",
    "format_table",
    "measure_files",
    "measure_latency",
    "paper",
    "plot_accuracies",
    "plot_budget",
    "plot_channels",
    "plot_distributions",
    "plot_flops",
    "plot_gates",
    "plot_sensitivity",
    "read_history",
    "summarize_pruning",
]
