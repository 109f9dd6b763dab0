"""What pruning one network has gained and lost."""

import pathlib

import keras

from keras_bar import deployment
from keras_bar import files
from keras_bar import reports
from recipes.results import tables


def show(settings):
    """Prints the networks of the one experiment that was asked for side by
    side. What they weigh and how fast they are is added to its report, unless
    it is there."""
    rows = tables.alike(tables.find_rows(settings.folders), settings)
    rows = rows[rows.seed == settings.seeds[0]]
    row = rows[rows.factor == settings.factors[0]].iloc[0]
    path = pathlib.Path(row.folder, "report.json")
    report = files.read_json(path)
    if "results" not in report:
        print("measuring", flush=True)
        full = path.parents[1] / report["teacher_folder"]
        results = reports.measure_files(
            {
                "teacher": full / "teacher.keras",
                "compact": path.with_name("compact.keras"),
            }
        )
        results["teacher"]["accuracy"] = report["teacher"]
        results["compact"]["accuracy"] = report["accuracy"]
        report |= {"results": results, "used": report[settings.metric]}
        files.write_json(path, report)
    print(
        f"\n{reports.comparison_table(report['results'])}\n\n"
        f"{report['used']:.2%} of the {settings.metric} is in use, the budget "
        f"was {1 / settings.factors[0]:.2%}.\n{row.folder} holds "
        "compact.keras, report.json, budget.png and channels.png."
    )


def export(experiment, formats):
    """Writes the networks of an experiment in formats for devices, and shows
    size, latency and accuracy of the files."""
    data, written = experiment.data, {}
    trained = {"teacher": experiment.full(), "compact": experiment}
    for name, run in trained.items():
        model = keras.models.load_model(run.path(name), compile=False)
        written[name] = deployment.export(
            model, run.folder / "exported", formats, data=data.x[:200]
        )
    found = deployment.measure(written, data.x_test, data.y_test)
    table = deployment.format_measurements(found)
    files.write_text(experiment.folder / "exported.md", f"```\n{table}\n```\n")
    print(f"\n{experiment.key}\n{table}")
