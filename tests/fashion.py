"""Short runs of the recipes that compare methods."""

import csv
import shutil

TEACHER = "wide_resnet-scratch-teacher-volume-1-seed0"


def run(main, pictures, folder, *arguments):
    """Runs a recipe's `main` on few pictures, for few epochs."""
    main(
        ["--data", str(pictures), "--output", str(folder)]
        + ["--pictures", "256", "--factors", "4", "--seeds", "0"]
        + ["--scale", "0.2"]
        + list(arguments)
    )


def rows_of(folder):
    """The rows of `results.csv` by method."""
    with open(folder / "results.csv", newline="") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def lend_teacher(source, folder):
    """Copies the full network from one run's folder to another."""
    shutil.copytree(source / TEACHER, folder / TEACHER)
