"""Fixtures of more than one file."""

import pytest

from tests import fashion


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A file of made-up pictures, for which recipes have a narrow network."""
    path = tmp_path_factory.mktemp("data") / "pictures.npz"
    fashion.write_pictures(path)
    with fashion.narrow():
        yield path
