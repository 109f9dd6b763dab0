"""The optional packages of the formats."""

import importlib.util


def require(*packages):
    """Raises an ImportError if one of the packages is not installed."""
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ImportError(
                "The format needs a package that is not installed. Expected "
                "`pip install keras-bar[deploy]`. "
                f"Received: no {package}"
            )
