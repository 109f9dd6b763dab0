"""The examples in the docstrings of the public names."""

import doctest
import importlib
import inspect

import keras
import numpy as np
import pytest

import keras_bar
from tests.helpers import archives

# Modules whose examples run on every backend, and those of which one is
# enough: what they share with the first is tested there.
CORE = (
    "keras_bar.hard_concrete",
    "keras_bar.layers",
    "keras_bar.schedules",
)
OTHERS = (
    "keras_bar",
    "keras_bar.baselines",
    "keras_bar.callbacks",
    "keras_bar.datasets",
    "keras_bar.deployment",
    "keras_bar.devices",
    "keras_bar.distillation",
    "keras_bar.in_memory",
    "keras_bar.models",
    "keras_bar.multi_host",
    "keras_bar.reports",
    "keras_bar.reports.paper",
    "keras_bar.runs",
    "keras_bar.tuning",
)


def public_names(modules):
    """Full names of the public functions and classes of modules."""
    found = []
    for name in modules:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", None) or [
            x
            for x, y in vars(module).items()
            if not x.startswith("_") and getattr(y, "__module__", "") == name
        ]
        found += [f"{name}.{x}" for x in names if _documented(module, x)]
    return found


def _documented(module, name):
    value = getattr(module, name)
    return inspect.isclass(value) or inspect.isfunction(value)


def find(name):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


NAMES = [
    *(pytest.param(x, marks=pytest.mark.core) for x in public_names(CORE)),
    *public_names(OTHERS),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, in which an example may write."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:The training was too short")
@pytest.mark.usefixtures("without_xla")
def test_example(name, folder):
    if name.startswith("keras_bar.datasets"):
        archives.write("mio_tcd", folder / "data", 18, 2)
    value = find(name)
    text = inspect.getdoc(value)
    assert "Example:" in text, f"{name} has no example"
    # What every example takes for granted.
    names = {"keras": keras, "keras_bar": keras_bar, "np": np}
    file = inspect.getsourcefile(value)
    example = doctest.DocTestParser().get_doctest(text, names, name, file, 0)
    assert example.examples, f"{name} has an example that does nothing"
    output: list = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    runner.run(example, out=output.append)
    assert not runner.failures, "".join(output)


@pytest.mark.parametrize("name", NAMES)
def test_annotations(name):
    value = find(name)
    function = value.__init__ if inspect.isclass(value) else value
    signature = inspect.signature(function)
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    bare = [
        x.name
        for x in signature.parameters.values()
        if x.annotation is x.empty and x.name != "self" and x.kind not in kinds
    ]
    assert not bare, f"{name} does not say what {bare} are"
    if inspect.isfunction(value):
        assert signature.return_annotation is not signature.empty
