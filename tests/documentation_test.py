"""The documentation: its code runs, its reference has every public name."""

import pathlib
import re

import keras
import pytest

import keras_bar
from scripts import run_notebooks
from tests import public_names_test
from tests.helpers import tiny

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = {str(path.relative_to(DOCS)): path for path in run_notebooks.find()}
# Bytes of a notebook with its outputs, of which the repository keeps each
# version.
LARGEST = 250_000


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_those_of_the_code(name):
    path = NOTEBOOKS[name]
    notebook = run_notebooks.read(path)
    made_from = notebook.metadata.get(run_notebooks.KEY)
    assert made_from == run_notebooks.fingerprint(notebook), (
        f"run python scripts/run_notebooks.py docs/{name}"
    )
    assert path.stat().st_size < LARGEST
    outputs = [y for x in notebook.cells for y in x.get("outputs", [])]
    assert outputs and all(x.output_type != "error" for x in outputs)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # Some train for minutes, longer on busy machines.
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name):
    """The notebook's own assertions hold."""
    notebook = run_notebooks.read(NOTEBOOKS[name])
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    run_notebooks.execute(notebook)
    assert any(x.get("outputs") for x in notebook.cells)


def test_the_reference_has_every_public_name():
    pages = (DOCS / "reference").glob("*.md")
    text = "\n".join(x.read_text() for x in pages)
    shown = re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE)
    modules = public_names_test.CORE + public_names_test.OTHERS
    assert sorted(shown) == sorted(public_names_test.public_names(modules))


@pytest.mark.usefixtures("without_xla")
def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    text = (ROOT / "README.md").read_text()
    code = re.search("```python\n(.*?)```", text, flags=re.DOTALL)[1]
    steps = [x for x in code.splitlines() if x and "import" not in x]
    assert len(steps) == 5
    monkeypatch.chdir(tmp_path)
    x, y = tiny.data()
    names = {
        "model": tiny.network(),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "x": x,
        "y": y,
    }
    exec(code, names)
    full, left = map(keras_bar.measure_cost, (names["model"], names["small"]))
    assert left.volume <= full.volume / 8
    again = keras.models.load_model("small.keras")
    assert keras_bar.measure_cost(again) == left


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_of_the_repository_page(name):
    text = (ROOT / name).read_text()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert links
    assert [x for x in links if not (ROOT / x).exists()] == []


def test_the_citation_is_that_of_the_paper():
    readme = (ROOT / "README.md").read_text()
    citation = (ROOT / "CITATION.cff").read_text()
    title = re.search(r"title     = \{(.*)\}", readme)[1]
    assert f"  title: {title}\n" in citation
