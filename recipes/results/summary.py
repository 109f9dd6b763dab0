"""What pruning one network has gained and lost."""

import json
import pathlib

import keras

import keras_bar
from keras_bar import files
from keras_bar import reports
from recipes.results import tables


def write(settings):
    """Adds to the report of the one experiment that was asked for what its
    networks weigh and how fast they are, unless it is there. Returns the
    report, and its folder."""
    rows = tables.alike(tables.find_rows(settings.folders), settings)
    rows = rows[rows.seed == settings.seeds[0]]
    folder = rows[rows.factor == settings.factors[0]].folder.iloc[0]
    path = pathlib.Path(folder, "report.json")
    report = files.read_json(path)
    if "results" not in report:
        report |= measure(report, path.parent)
        tables.write_text(json.dumps(report, indent=1), path)
    return report, path.parent


def measure(report, folder):
    """The networks of an experiment, and how much of the budget is in use."""
    print("measuring", flush=True)
    paths = {
        "teacher": folder.parent / report["teacher_folder"] / "teacher.keras",
        "compact": folder / "compact.keras",
    }
    networks = {
        x: keras.models.load_model(y, compile=False) for x, y in paths.items()
    }
    results = {}
    for name, accuracy in (("teacher", "teacher"), ("compact", "accuracy")):
        cost = keras_bar.measure_cost(networks[name])
        results[name] = {
            "accuracy": report[accuracy],
            **{x: getattr(cost, x) for x in ("volume", "flops", "params")},
            "file_bytes": paths[name].stat().st_size,
        }
    for size in (1, 128):
        latency = reports.measure_latency(networks, size)
        for name, milliseconds in latency.items():
            results[name][f"latency_ms_batch_{size}"] = milliseconds
    return {"results": results, "used": report[report["metric"]]}


def show(settings):
    """Prints the networks of the one experiment that was asked for side by
    side."""
    report, folder = write(settings)
    metric, budget = settings.metric, 1 / settings.factors[0]
    print(
        f"\n{reports.comparison_table(report['results'])}\n\n"
        f"{report['used']:.2%} of the {metric} is in use, the budget was "
        f"{budget:.2%}.\n{folder} holds compact.keras, report.json, budget.png "
        "and channels.png."
    )
