"""Fixtures of the tests of the recipes."""

import pytest

from tests.recipes import fashion


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A file of synthetic images, for which recipes have a narrow network."""
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    fashion.write_pictures(path)
    with fashion.narrow():
        yield path


@pytest.fixture
def undrawn(monkeypatch):
    """Recipes that draw no figures, which others look at."""
    fashion.undraw(monkeypatch, "draw", "draw_networks", "draw_prunings")
