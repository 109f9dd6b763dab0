"""Tells that a data set is missing before Keras is imported.

That takes seconds, and more of them than looking for the data set does.
"""

import argparse
import importlib.util
import pathlib
import sys

# Where tensorflow-datasets looks for its data sets, too.
FOLDER = pathlib.Path("~/tensorflow_datasets")
SOURCES = pathlib.Path(__file__).parents[2] / "keras_bar/datasets/sources.py"


def check(name, given=None):
    """Exits with a line of text and code 2 where nothing of a data set is in
    its folder, and it cannot be downloaded.

    Args:
        name: String, a name in `keras_bar.datasets.SOURCES`.
        given: List of the command line's arguments, or None for the real ones.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--data", "--data-dir", default=FOLDER)
    parser.add_argument("--strategy")
    settings, _ = parser.parse_known_args(given)
    # Of several hosts the first one prepares the data for the others.
    several = settings.strategy == "multiworker"
    if settings.help or settings.synthetic or several:
        return
    sources = _import_alone(SOURCES)
    source = sources.SOURCES[name]
    folder = sources.around(source, settings.data)
    prepared = (folder / x for x in (name, f"extracted_{name}"))
    if sources.find(source, folder) or any(x.exists() for x in prepared):
        return
    try:
        sources.check_network(name, source, folder)
    except ConnectionError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _import_alone(path):
    """A module without the package that it is in, which imports Keras."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
