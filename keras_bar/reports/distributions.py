"""The distributions of gates, as in Fig. 3 of the supplement."""

import os

import numpy as np
from keras import ops

from keras_bar import hard_concrete
from keras_bar.reports import plotting

_BINARY, _HARD = plotting.VERMILION, plotting.BLUE
# Distance of the curves from 0 and 1, where densities can be infinite.
_MARGIN = 1e-4


def plot_distributions(
    path: str | os.PathLike[str], log_alpha: float = 0.0
) -> None:
    """Draws the binary and the hard concrete distributions.

    The left panel shows their densities, and the probabilities of 0 and 1 of
    the hard concrete. The right panel shows their inverse cumulative
    distribution functions, which turn uniform noise into gates. At
    `log_alpha = 0` the probability of 0 is 0.168; the supplement's 0.23 holds
    for another `beta`, see `keras_bar.hard_concrete.pdf`.

    Args:
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.
        log_alpha: Float, the location of the gate.

    Example:

    >>> from keras_bar import reports
    >>> reports.plot_distributions("gates.svg")
    """
    figure, (left, right) = plotting.new_panels(2, 2, 4.4, 3.2)
    _draw_densities(left, log_alpha)
    _draw_quantiles(right, log_alpha)
    for axes in (left, right):
        axes.legend(frameon=False)
    plotting.save(figure, path)


def _draw_densities(axes, log_alpha):
    z = np.linspace(_MARGIN, 1 - _MARGIN, 500)
    hard = _draw_both(
        axes,
        z,
        hard_concrete.binary_concrete_pdf,
        hard_concrete.pdf,
        log_alpha,
    )
    atoms = {
        0: 1 - _to_numpy(hard_concrete.probability_alive, log_alpha),
        1: _to_numpy(hard_concrete.probability_one, log_alpha),
    }
    top = 1.6 * max(hard.max(), *atoms.values())
    for place, mass in atoms.items():
        axes.plot([place, place], [0, mass], color=_HARD, linewidth=3)
        axes.plot([place], [mass], "o", color=_HARD, clip_on=False)
        axes.annotate(
            f"P(z = {place}) = {mass:.3f}",
            (place, mass),
            (0.06 if place == 0 else 0.94, 0.03 * top),
            ha="left" if place == 0 else "right",
            fontsize=8,
        )
    axes.set_ylim(0, top)
    axes.set_xlabel("z")
    axes.set_ylabel("density; probability of 0 and 1")


def _draw_quantiles(axes, log_alpha):
    u = np.linspace(_MARGIN, 1 - _MARGIN, 500)
    _draw_both(
        axes,
        u,
        hard_concrete.binary_concrete_inverse_cdf,
        hard_concrete.inverse_cdf,
        log_alpha,
    )
    axes.set_xlabel("uniform noise")
    axes.set_ylabel("z")


def _draw_both(axes, x, binary, hard, log_alpha):
    """Draws a function of both distributions; returns the hard one's values."""
    values = _to_numpy(binary, x, log_alpha)
    axes.plot(x, values, color=_BINARY, linestyle="--", label="binary concrete")
    values = _to_numpy(hard, x, log_alpha)
    axes.plot(x, values, color=_HARD, label="hard concrete")
    return values


def _to_numpy(function, *arguments):
    return ops.convert_to_numpy(function(*arguments))
