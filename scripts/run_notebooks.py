"""Runs the documentation's notebooks and stores what they print and draw.

    python scripts/run_notebooks.py                     # all
    python scripts/run_notebooks.py docs/quickstart.ipynb

Notebooks are stored with their outputs, which are small, so that the build of
the site shows results without training anything. The test suite checks that the
outputs belong to the current code, and runs the notebooks.
"""

import ast
import hashlib
import os
import pathlib
import sys
import tempfile

import nbclient
import nbformat

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Time limit of a cell, in seconds.
PATIENCE = 600
# Key of a notebook's metadata: the fingerprint of the code of its outputs.
KEY = "keras_bar"


def find():
    """Paths of the notebooks of the documentation."""
    return sorted((ROOT / "docs").rglob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def fingerprint(notebook):
    """Hexadecimal digest of a notebook's code, whatever its format."""
    code = [x.source for x in notebook.cells if x.cell_type == "code"]
    trees = [ast.dump(ast.parse(x)) for x in code]
    return hashlib.sha256("\n".join(trees).encode()).hexdigest()


def execute(notebook):
    """Runs a notebook in a temporary folder, and replaces its outputs."""
    # The checkout's package, installed or not.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=PATIENCE,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        )
        client.execute(env=environment)


def clean(notebook):
    """Removes everything from a notebook that differs between runs."""
    for index, cell in enumerate(notebook.cells):
        cell.id = f"cell-{index}"
        cell.metadata = {}
        if cell.cell_type == "code":
            # Warnings and progress bars of the backends.
            cell.outputs = [
                x for x in cell.outputs if x.get("name") != "stderr"
            ]
            # Representations of objects of Matplotlib and IPython.
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data.pop("text/plain", None)
    notebook.metadata = {
        "kernelspec": {
            "display_name": "Python 3",
            "language": "python",
            "name": "python3",
        },
        "language_info": {"name": "python"},
        KEY: fingerprint(notebook),
    }


def main(arguments):
    for path in map(pathlib.Path, arguments or find()):
        print(path, flush=True)
        notebook = read(path)
        execute(notebook)
        clean(notebook)
        nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])
