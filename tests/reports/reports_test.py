import pathlib
import sys

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar import reports
from keras_bar.reports import plotting


@pytest.fixture(scope="module")
def gated():
    """Two blocks per group, of which the second of group 2 is closed."""
    student = keras_bar.gate(keras_bar.models.WideResNet(16, 0.5, (8, 8, 1)))
    for layer in student.layers:
        if isinstance(layer, keras_bar.layers.HardConcreteGate):
            alive = layer.alive()
            alive[:] = "group2_block2" not in layer.name
            layer.set_alive(alive)
    return student


def texts(axes):
    return [x.get_text() for x in axes.texts]


@pytest.fixture
def drawn(monkeypatch):
    """The axes of the figures that were saved."""
    saved = []
    save = plotting.save

    def keep(figure, path):
        saved.append(figure.axes[0])
        save(figure, path)

    monkeypatch.setattr(plotting, "save", keep)
    return saved


def test_table_aligns_its_columns():
    table = reports.format_table(["", "a"], [["x", "1,000"], ["long", "2"]])
    assert table.splitlines() == [
        "          a",
        "-----------",
        "x     1,000",
        "long      2",
    ]


def test_comparison_tells_points_and_factors():
    table = reports.comparison_table(
        {
            "teacher": {"accuracy": 0.99, "volume": 8000},
            "compact": {"accuracy": 0.985, "volume": 1000},
        }
    )
    assert "-0.50 points" in table
    assert "8.0 x" in table
    assert "FLOPs" not in table


def test_comparison_of_three_has_no_factors():
    models = {x: {"accuracy": 0.5, "volume": 8} for x in "abc"}
    table = reports.comparison_table(models)
    assert "points" not in table
    assert " x" not in table


def test_latency_is_measured_per_model():
    models = {
        name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        for name in ("one", "two")
    }
    latency = reports.measure_latency(models, batch_size=3, repeats=3, warmup=1)
    assert set(latency) == {"one", "two"}
    assert all(x > 0 for x in latency.values())


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_budget_figure(drawn, tmp_path, ending):
    history = {
        "flops": [1.0, 0.4, 0.0],
        "budget": [1.01, 0.5, 0.25],
        "expected": [0.9, 0.5, 0.24],
    }
    path = tmp_path / f"budget.{ending}"
    reports.plot_budget(history, path, metric="flops")
    assert path.stat().st_size > 1000
    (axes,) = drawn
    assert "FLOPs" in axes.get_ylabel()
    assert len(axes.lines) == 3
    # A network that came apart does not stretch the figure.
    assert axes.get_ylim()[0] == 0.125


@pytest.mark.parametrize(
    "metric,label", [("memory", "peak memory"), ("latency", "latency")]
)
def test_budget_figures_of_other_metrics(drawn, tmp_path, metric, label):
    history = {metric: [1.0, 0.4], "budget": [1.01, 0.5]}
    reports.plot_budget(history, tmp_path / "budget.png", metric=metric)
    assert drawn[0].get_ylabel() == f"{label}, fraction of the full network"
    assert len(drawn[0].lines) == 2


def test_channels_figure_shows_removed_blocks(drawn, tmp_path, gated):
    path = tmp_path / "channels.png"
    reports.plot_channels({"1/2": keras_bar.measure_cost(gated)}, path)
    assert path.stat().st_size > 1000
    (axes,) = drawn
    assert texts(axes).count("removed") == 1
    (crosses,) = axes.lines
    assert len(crosses.get_xdata()) == 2


def test_channels_of_several_budgets_stand_side_by_side(drawn, tmp_path, gated):
    cost = keras_bar.measure_cost(gated)
    reports.plot_channels({"1/2": cost, "1/4": cost}, tmp_path / "x.svg")
    (axes,) = drawn
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["full network", "1/2", "1/4"]


def test_blocks_are_found_from_names():
    labels, blocks = plotting._split_names(
        ["stem_conv", "b1_conv1", "b1_conv2", "b2_conv1", "last"]
    )
    assert labels == ["stem_conv", "conv1", "conv2", "b2_conv1", "last"]
    assert blocks == [("b1", 1, 2)]


def test_missing_matplotlib_is_explained(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        reports.plot_budget({"volume": [1], "budget": [1]}, tmp_path / "x.png")


def test_accuracies_per_method(drawn, tmp_path):
    points = {f: [0.79, 0.8, 0.81] for f in (2.0, 16.0, 4.0)}
    panel = reports.Panel(
        "images",
        [
            reports.Curve("BAR", points),
            reports.Curve("own", {4.0: [0.6]}, published=True),
        ],
        full=0.9,
    )
    reports.plot_accuracies([panel, panel], tmp_path / "accuracy.svg")
    figure = drawn[0].figure
    assert len(figure.axes) == 2
    full, bar, own = figure.axes[1].get_lines()
    assert list(full.get_ydata()) == [90, 90]
    assert list(bar.get_xdata()) == [2, 4, 16]
    assert list(bar.get_ydata()) == pytest.approx([80] * 3)
    assert list(own.get_ydata()) == pytest.approx([60])
    assert bar.get_linestyle() == "-" and own.get_linestyle() == "--"
    (band,) = figure.axes[1].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((79, 81))
    # One legend for both, which must not run out of the figure.
    (legend,) = figure.legends
    assert [x.get_text() for x in legend.get_texts()] == [
        "BAR",
        "own",
        "full network",
        "measured here",
        "published",
    ]


def test_legend_of_many_methods_is_whole(drawn, tmp_path):
    curves = [reports.Curve(f"method {i}", {2.0: [0.5]}) for i in range(12)]
    curves.append(reports.Curve("method 0", {2.0: [0.5]}, published=True))
    panel = reports.Panel("", curves, full=0.9)
    reports.plot_accuracies([panel], tmp_path / "accuracy.png")
    figure = drawn[0].figure
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 15
    box = legend.get_window_extent()
    assert box.y0 >= 0 and box.y1 <= figure.bbox.height
    assert box.x1 <= figure.bbox.width
    assert (tmp_path / "accuracy.png").stat().st_size > 0


def test_tables_of_the_supplement():
    (row,) = (
        x
        for x in reports.paper.load("connectivity")
        if x["dataset"] == "cifar10" and x["pruning_factor"] == 16
    )
    # Section 5.1: 58 % less volume, 48 % fewer FLOPs.
    assert 1 - row["mixed_volume"] / row["regular_volume"] == pytest.approx(
        0.58, abs=0.005
    )
    assert 1 - row["mixed_flops"] / row["regular_flops"] == pytest.approx(
        0.48, abs=0.005
    )
    methods = {x["method"] for x in reports.paper.load("results")}
    assert len(methods) == 9
    with pytest.raises(ValueError, match=r"Expected one of .* Received"):
        reports.paper.load("figures")


def test_flops_of_every_layer(gated, drawn, tmp_path):
    full = keras_bar.measure_cost(
        keras_bar.models.WideResNet(16, 0.5, (8, 8, 1))
    )
    cost = keras_bar.measure_cost(gated)
    for ending in ("png", "svg"):
        path = tmp_path / f"flops.{ending}"
        reports.plot_flops(full, {"pruned": cost}, path)
        assert path.stat().st_size > 0
    axes = drawn[0]
    bars = [[x.get_width() for x in group] for group in axes.containers]
    assert sum(bars[0]) == pytest.approx(100)
    assert sum(bars[1]) == pytest.approx(100 * cost.flops / full.flops)
    names = [x.get_text() for x in axes.get_yticklabels()]
    removed = [x for x, y in zip(names, bars[1], strict=True) if y == 0]
    assert removed == ["group2_block2_conv1", "group2_block2_conv2"]


@pytest.mark.parametrize("count", [0, 1, 6])
def test_flops_of_any_number_of_networks(gated, drawn, tmp_path, count):
    cost = keras_bar.measure_cost(gated)
    costs = {f"1/{2**i}": cost for i in range(count)}
    reports.plot_flops(cost, costs, tmp_path / "flops.png")
    assert len(drawn[0].containers) == 1 + count


def test_channels_of_no_network(tmp_path):
    with pytest.raises(ValueError, match="at least one network. Received"):
        reports.plot_channels({}, tmp_path / "channels.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: reports.plot_gates({}, path),
        lambda path: reports.plot_sensitivity({}, path),
        lambda path: reports.plot_accuracies([], path),
    ],
)
def test_figures_of_nothing(tmp_path, draw):
    with pytest.raises(ValueError, match=r"Expected at least one .* Received"):
        draw(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_channels_are_found_by_their_layers(drawn, tmp_path, gated):
    """Also where a compact network lacks some of them."""
    full = keras_bar.measure_cost(gated)
    small = keras_bar.measure_cost(keras_bar.compact(gated))
    assert len(small.layers) < len(full.layers)
    reports.plot_channels({"a": full, "b": small}, tmp_path / "x")
    assert (tmp_path / "x.png").exists()
    (axes,) = drawn
    _, gated_bars, compact_bars = axes.containers
    heights = [
        [x.get_height() for x in bars] for bars in (gated_bars, compact_bars)
    ]
    assert heights[0] == heights[1]


def test_a_figure_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "gates.svg"
    reports.plot_distributions(path)
    before = path.read_bytes()

    def fail(self, path, **_):
        pathlib.Path(path).write_text("<svg")
        raise OSError("no space left")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(OSError, match="no space left"):
        reports.plot_distributions(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_gates_over_time(drawn, tmp_path):
    closed, opened = [4] + 19 * [0], 19 * [0] + [4]
    epochs = {
        "1": {"a": opened, "b": opened},
        "2": {"a": opened, "b": closed},
        "10": {"a": closed, "b": closed},
    }
    reports.plot_gates(epochs, tmp_path / "gates.png")
    (line,) = drawn[0].get_lines()
    assert line.get_xdata().tolist() == [1, 2, 10]
    assert line.get_ydata().tolist() == [1, 0.5, 0]


def test_distributions(drawn, tmp_path):
    reports.plot_distributions(tmp_path / "distributions.svg")
    assert texts(drawn[0]) == ["P(z = 0) = 0.168", "P(z = 1) = 0.168"]
    right = drawn[0].figure.axes[1]
    hard = right.get_lines()[1].get_ydata()
    assert hard.min() == 0 and hard.max() == 1
    # The density and the two atoms are all that there is.
    line = drawn[0].get_lines()[1]
    area = np.trapezoid(line.get_ydata(), line.get_xdata())
    assert area + 2 * 0.168 == pytest.approx(1, abs=2e-3)


def test_sensitivity(drawn, tmp_path):
    panels = {
        "here": {"measured": {2: (0.9, 0.01), 4: (0.8, 0.02)}},
        "there": {"published": {2: (0.95, 0.0)}},
    }
    reports.plot_sensitivity(panels, tmp_path / "sensitivity.png")
    left, right = drawn[0].figure.axes
    (container,) = left.containers
    assert container[0].get_ydata().tolist() == [90, 80]
    (bars,) = container[2]
    heights = [np.ptp(x[:, 1]) for x in bars.get_segments()]
    assert heights == pytest.approx([2, 4])
    colours = [x.containers[0][0].get_color() for x in (left, right)]
    assert len(set(colours)) == 2
