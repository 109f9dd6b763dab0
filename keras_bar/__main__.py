"""Command line: costs, explanations and compaction of model files.

keras-bar cost model.keras
keras-bar explain gated.keras --json
keras-bar compact gated.keras -o small.keras
keras-bar measure model.keras --runtime litert -o latency.json

`python -m keras_bar` is the same program.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import sys
import textwrap
import zipfile

import keras

from keras_bar import compaction
from keras_bar import costs
from keras_bar import deployment
from keras_bar import files

# Maximum length of a quoted error: those of Keras hold the whole configuration
# of a layer.
ERROR = 300


class UserError(Exception):
    """A user error, printed as one line, with exit code 2."""


def main(arguments=None):
    settings = parse(arguments)
    try:
        found, text = settings.run(settings)
    except UserError as error:
        line = " ".join(str(error).split())
        print(f"keras-bar {settings.command}: {line}", file=sys.stderr)
        sys.exit(2)
    # JSON cannot serialize NumPy scalars.
    print(json.dumps(found, indent=1, default=float) if settings.json else text)


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="keras-bar",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name, run, path, text):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("path", type=pathlib.Path, help=path)
        command.add_argument(
            "--json", action="store_true", help="print JSON instead of text"
        )
        command.set_defaults(run=run)
        return command

    def add_model(name, run, path, text):
        command = add(name, run, path, text)
        command.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="module that registers custom layers; may be repeated",
        )
        return command

    model = "file of a Keras model"
    add_model("cost", cost, model, "show the costs of a model, layer by layer")
    add_model(
        "explain",
        explain,
        model,
        "show what can be pruned, what cannot, and why",
    )
    small = add_model(
        "compact",
        compact,
        "file of a model with gates",
        "write the smaller model without the closed channels",
    )
    small.add_argument(
        "-o", "--output", type=pathlib.Path, required=True, metavar="FILE"
    )
    small.add_argument(
        "--connectivity", choices=("mixed", "regular"), default="mixed"
    )
    small.add_argument(
        "--fold-batch-norm",
        action="store_true",
        help="fold batch normalization into weights, for inference",
    )
    small.add_argument(
        "--allow-unfinished",
        action="store_true",
        help="allow gates that still learn, or an exceeded budget",
    )
    timed = add_model(
        "measure",
        measure_latency,
        model,
        "measure the times of a model's layers on this device",
    )
    timed.add_argument(
        "-o", "--output", type=pathlib.Path, required=True, metavar="FILE"
    )
    timed.add_argument("--runtime", default="litert")
    timed.add_argument("--batch-size", type=int, default=1, metavar="SAMPLES")
    timed.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


def cost(settings):
    found = measure(load(settings), settings.path)
    return dataclasses.asdict(found), str(found)


def explain(settings):
    try:
        found = compaction.explain(load(settings))
    except ValueError as error:
        raise UserError(error) from error
    return dataclasses.asdict(found), str(found)


def compact(settings):
    output = settings.output
    if output.suffix != ".keras":
        raise UserError(
            "The smaller model cannot be written. Expected a path that ends "
            f"with .keras. Received: {output}"
        )
    if output.exists():
        raise UserError(
            "The output file exists and is not overwritten. Expected "
            f"another --output. Received: {output}"
        )
    check_writable(output)
    model = load(settings)
    try:
        small = compaction.compact(
            model,
            connectivity=settings.connectivity,
            fold_batch_norm=settings.fold_batch_norm,
            allow_unfinished=settings.allow_unfinished,
        )
    except ValueError as error:
        raise UserError(error) from error
    try:
        with files.replacing(output) as unfinished:
            small.save(unfinished)
    except OSError as error:
        raise UserError(f"{output} could not be written: {error}") from error
    found = measure(small, output)
    what = compaction.explain(small)
    both = {"cost": found, "explanation": what}
    return (
        {"file": str(output)}
        | {name: dataclasses.asdict(x) for name, x in both.items()},
        f"{found}\n\n{what}\n\nwrote {output}",
    )


def measure_latency(settings):
    output = settings.output
    check_writable(output)
    model = load(settings)
    try:
        latency = deployment.measure_latency(
            model,
            settings.runtime,
            output,
            batch_size=settings.batch_size,
            threads=settings.threads,
            verbose=not settings.json,
        )
    except (ValueError, ImportError) as error:
        raise UserError(error) from error
    found = costs.measure_cost(model, latency)
    return latency.to_json(), f"{found}\n\nwrote {output}"


def check_writable(output):
    """Fails early if the output cannot be written."""
    if not output.parent.is_dir():
        raise UserError(
            "The output has no such folder. Expected one that exists. "
            f"Received: {output.parent}"
        )
    try:
        files.check_writable(output)
    except ValueError as error:
        raise UserError(error) from error


def measure(model, path):
    """Returns the `Cost` of a model."""
    try:
        return costs.measure_cost(model)
    except ValueError as error:
        raise UserError(f"{error} ({path})") from error


def load(settings):
    """Loads the model of the command line."""
    path = settings.path
    for module in settings.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise UserError(
                "There is no such module. Expected one that Python can import "
                f"from here. Received: --import {module} ({error})"
            ) from error
    if not path.exists():
        raise UserError(
            "There is no such file. Expected a Keras model, such as "
            f"model.keras. Received: {path}"
        )
    check_whole(path)
    try:
        return keras.models.load_model(path, compile=False)
    # Damaged files raise any error of the reader of their format.
    except Exception as error:
        raise UserError(
            "The file is not a loadable Keras model. Expected a file that "
            "`model.save` wrote, with layers of Keras, keras_bar or a module "
            f"named with --import. Received: {path} "
            f"({textwrap.shorten(str(error), ERROR)})"
        ) from error


def check_whole(path):
    """Fails if a `.keras` file is damaged, for which Keras would report a
    missing file."""
    if path.suffix != ".keras" or not path.is_file():
        return
    size = path.stat().st_size
    if not size or not zipfile.is_zipfile(path):
        found = (
            f"{size} bytes that are not a complete archive: cut off, or in "
            "another format"
            if size
            else "an empty file"
        )
        raise UserError(
            "The file is not a loadable Keras model. Expected a file that "
            "`model.save` wrote and that was copied completely. "
            f"Received: {path} ({found})"
        )


if __name__ == "__main__":
    main()
