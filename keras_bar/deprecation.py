"""Deprecated names of arguments and functions, kept for one version."""

import functools
import warnings


def renamed_arguments(**names):
    """Decorates a function whose arguments were renamed.

    Args:
        **names: The new name of each old name.
    """

    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            for old in names.keys() & kwargs.keys():
                _warn(f"The argument `{old}`", f"`{names[old]}`", 3)
                if names[old] in kwargs:
                    raise TypeError(
                        "An argument was given under two names. Expected only "
                        f"`{names[old]}`. Received: `{old}` as well"
                    )
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def renamed_attribute(module, names, name):
    """Looks up a renamed attribute, for the `__getattr__` of a module.

    Args:
        module: Dict of the module's globals.
        names: Dict from old name to new name.
        name: The name that is looked up.
    """
    if name not in names:
        raise AttributeError(
            f"module {module['__name__']!r} has no attribute {name!r}"
        )
    _warn(f"`{module['__name__']}.{name}`", f"`{names[name]}`", 4)
    return module[names[name]]


def _warn(old, new, level):
    warnings.warn(
        f"{old} is now {new}; the next version removes the old name.",
        DeprecationWarning,
        stacklevel=level,
    )
