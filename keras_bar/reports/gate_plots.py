"""The history of gates during training."""

import os

import numpy as np

from keras_bar.reports import plotting


def plot_gates(
    epochs: dict[str, dict[str, list[int]]], path: str | os.PathLike[str]
) -> None:
    """Draws the distribution of the channels' keep probability in each epoch.

    A line shows the share of the channels that are more likely alive than dead.

    Args:
        epochs: Dict from epoch number to a dict from gate name to the counts of
            its channels in equal bins of the keep probability, as written by
            `keras_bar.callbacks.GateHistoryLogger`.
        path: Path of the image file; its suffix (`.png`, `.svg`, `.pdf`)
            determines the format.

    Raises:
        ValueError: If there are no epochs.

    Example:

    >>> from keras_bar import reports
    >>> epochs = {"1": {"conv_gate": 19 * [0] + [8]}}  # All open after epoch 1.
    >>> reports.plot_gates(epochs, "gates.svg")
    """
    if not epochs:
        raise ValueError(
            "There are no gates to draw. Expected at least one epoch. "
            "Received: epochs={}"
        )
    numbers = sorted(epochs, key=int)
    counts = np.array(
        [np.sum(list(epochs[x].values()), axis=0) for x in numbers]
    )
    shares = counts / counts.sum(1, keepdims=True)
    figure, axes = plotting.new_figure(5.5, 3.4)
    ends = [int(x) + 0.5 for x in numbers]
    # The square root makes a share of 1 % visible beside one of 90 %.
    mesh = axes.pcolormesh(
        [ends[0] - 1, *ends],
        np.linspace(0, 1, counts.shape[1] + 1),
        np.sqrt(shares.T),
        cmap="Blues",
        vmin=0,
        vmax=1,
        rasterized=True,
    )
    half = counts.shape[1] // 2
    axes.plot(
        list(map(int, numbers)),
        shares[:, half:].sum(1),
        color=plotting.VERMILION,
        marker=".",
        label="share of the channels above 1/2",
    )
    bar = figure.colorbar(mesh, ax=axes, label="share of the channels")
    marks = [0, 0.01, 0.1, 0.25, 0.5, 1]
    bar.set_ticks(np.sqrt(marks).tolist(), labels=[f"{x:.0%}" for x in marks])
    axes.set_xlabel("epoch of pruning")
    axes.set_ylabel("P(z > 0)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    plotting.save(figure, path)
