"""Old names work for one more version, with a warning."""

import pytest

from keras_bar import baselines
from keras_bar import callbacks


@pytest.mark.parametrize(
    "old, new, value",
    [
        ("openness", "initial_logit", 2.0),
        ("indecision", "undecided_fraction", (0.3, 0.1)),
        ("price_exponent", "cost_exponent", 1.0),
    ],
)
def test_old_arguments(old, new, value):
    with pytest.warns(DeprecationWarning, match=f"`{old}` is now `{new}`"):
        regularizer = callbacks.BudgetRegularizer(0.5, **{old: value})
    assert getattr(regularizer, new) == value
    with pytest.warns(DeprecationWarning), pytest.raises(TypeError, match=old):
        callbacks.BudgetRegularizer(0.5, **{old: value, new: value})


@pytest.mark.parametrize(
    "module, old, new",
    [
        (callbacks, "GateJournal", "GateHistoryLogger"),
        (baselines, "Channels", "ChannelGroup"),
        (baselines, "random", "random_scores"),
    ],
)
def test_old_names(module, old, new):
    with pytest.warns(DeprecationWarning, match=f"{old}` is now `{new}`"):
        assert getattr(module, old) is getattr(module, new)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        module.nothing  # noqa: B018
