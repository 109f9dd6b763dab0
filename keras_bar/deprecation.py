"""Old names of arguments and functions, which work for one more version."""

import functools
import warnings


def renamed_arguments(**names):
    """Decorates a function whose arguments have new names.

    Args:
        **names: The new name of every old one.
    """

    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            for old in names.keys() & kwargs.keys():
                _warn(f"The argument `{old}`", f"`{names[old]}`", 3)
                if names[old] in kwargs:
                    raise TypeError(
                        "An argument has two names. Expected "
                        f"`{names[old]}` alone. Received: `{old}`, too"
                    )
                kwargs[names[old]] = kwargs.pop(old)
            return function(*args, **kwargs)

        return wrapper

    return decorate


def renamed_attribute(module, names, name):
    """What a module's `__getattr__` returns for an old name.

    Args:
        module: Dict of the module's globals.
        names: Dict from every old name to the new one.
        name: The name that is asked for.
    """
    if name not in names:
        raise AttributeError(
            f"module {module['__name__']!r} has no attribute {name!r}"
        )
    _warn(f"`{module['__name__']}.{name}`", f"`{names[name]}`", 4)
    return module[names[name]]


def _warn(old, new, level):
    warnings.warn(
        f"{old} is now {new}; the old name will go in the next version.",
        DeprecationWarning,
        stacklevel=level,
    )
