"""What the paper leaves open about its control, and what comes of it."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar import hard_concrete
from keras_bar import schedules
from keras_bar.budget.controls import CENTER
from keras_bar.layers import BudgetState
from keras_bar.layers import HardConcreteGate
from tests.helpers import tiny
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import assert_connected
from tests.helpers.budgets import nothing
from tests.helpers.budgets import numpy
from tests.helpers.gradients import gradient

pytestmark = pytest.mark.core


# --- The inference factor --------------------------------------------------


def quantiles(log_alpha):
    """The hard concrete's values at many equally likely places, by hand."""
    u = (np.arange(200_000) + 0.5) / 200_000
    logits = np.log(u) - np.log1p(-u)
    s = 1 / (1 + np.exp(-(logits + log_alpha) / (2 / 3)))
    return np.clip(1.2 * s - 0.1, 0, 1)


@pytest.mark.parametrize("log_alpha", [-1.5, 0.0, 2.0])
def test_factors_of_inference_by_hand(log_alpha):
    z = quantiles(log_alpha)
    factors = {
        "median": np.median(z),
        "mean": np.mean(z),
        "louizos": np.clip(1.2 / (1 + np.exp(-log_alpha)) - 0.1, 0, 1),
    }
    for rule, expected in factors.items():
        gate = HardConcreteGate(inference=rule)
        gate.build((None, 3))
        gate.log_alpha.assign(np.full(3, log_alpha))
        result = numpy(gate(np.ones((1, 3), "float32")))[0]
        np.testing.assert_allclose(result, expected, atol=1e-4)


@pytest.mark.parametrize(
    "rule, closing",
    [("median", CENTER), ("mean", CENTER), ("louizos", -np.log(11))],
)
def test_factors_close_where_their_rule_says(rule, closing):
    gate = HardConcreteGate(inference=rule)
    gate.build((None, 2))
    gate.log_alpha.assign(closing + np.array([-1e-3, 1e-3], "float32"))
    assert list(gate.alive()) == [False, True]


def test_mean_is_large_where_the_median_is_near_0():
    just_open = CENTER + 0.01
    assert float(numpy(hard_concrete.deterministic(just_open))) < 0.01
    assert float(numpy(hard_concrete.mean_where_open(just_open))) > 0.19


def test_the_rule_is_saved(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, HardConcreteGate(inference="mean")(inputs))
    model.save(tmp_path / "model.keras")
    (gate,) = keras.models.load_model(tmp_path / "model.keras").layers[1:]
    assert gate.inference == "mean"


def test_an_unknown_rule():
    with pytest.raises(ValueError, match="'median', 'mean', 'louizos'"):
        HardConcreteGate(inference="mode")


# --- Settings -------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"samples": 0}, "Invalid samples"),
        ({"rate": -1.0}, "Invalid rate"),
        ({"push": float("inf")}, "Invalid push"),
        ({"lead": 1.0}, "Invalid lead"),
        ({"sharpness": "4"}, "Invalid sharpness"),
        ({"counted": "hard"}, "'alive', 'expected', 'larger'"),
        ({"inference": "mode"}, "Unknown inference factor"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        keras_bar.callbacks.BudgetRegularizer.paper(0.5, **wrong)


def begun(settings, optimizer=None, steps=100, budget=0.5, **options):
    """A student whose training by the paper's control begins, its state and
    the control."""
    model = tiny.student(optimizer=optimizer)
    regularizer = BudgetRegularizer.paper(budget, **settings, **options)
    regularizer.set_model(model)
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    control = regularizer.make_control(steps)
    control.begin(model.optimizer, resumes=False)
    return model, state, control


def locations(model):
    return [numpy(gate.location()) for gate in tiny.gates(model)]


# --- The rate -------------------------------------------------------------


@pytest.mark.parametrize(
    "rate, adam, steps, slope",
    [
        (None, 1e-3, 3124, 20.0),
        (None, 1e-2, 3124, 2.0),  # It moves ten times as far by itself.
        (None, 1e-3, 10**6, 1.0),  # Never slower than the optimizer.
        (7.0, 1e-3, 3124, 7.0),
    ],
)
def test_gates_move_as_far_as_the_papers(rate, adam, steps, slope):
    optimizer = keras.optimizers.Adam(adam)
    model, _, _ = begun({"rate": rate}, optimizer, steps)
    plain = tiny.student()
    for gate, start in zip(tiny.gates(model), locations(plain), strict=True):
        assert float(numpy(gate.slope)) == pytest.approx(slope, rel=1e-3)
        # They begin where the supplement says.
        np.testing.assert_allclose(numpy(gate.location()), start, rtol=1e-4)


def test_a_resumed_training_keeps_rate_and_place():
    model, state, control = begun({"sharpness": 4.0})
    control(state)
    state.step.assign(1)
    before = locations(model)
    again = BudgetRegularizer.paper(0.5, sharpness=4.0)
    again.set_params({"epochs": 2, "steps": 50, "verbose": 0})
    weights = [x.numpy() for x in model.variables]
    again.set_model(model)
    for x, value in zip(model.variables, weights, strict=True):
        x.assign(value)  # As `BackupAndRestore` does.
    for gate in tiny.gates(model):
        gate.inference = "median"
    again._begin(1)
    assert {x.inference for x in tiny.gates(model)} == {"mean"}
    for x, y in zip(locations(model), before, strict=True):
        np.testing.assert_array_equal(x, y)


# --- The barrier ----------------------------------------------------------


def test_the_barrier_is_clipped_as_in_the_paper():
    settings = {"push": None, "samples": 1, "rate": 1.0}
    _, state, control = begun(settings, strength=1.0)
    state.step.assign(60)  # The budget is far below the cost.
    soft = float(numpy(control.budget.soft_cost()))
    loss = float(numpy(control.loss(state)))
    assert loss == pytest.approx(schedules.BARRIER_MAX * soft, rel=1e-4)


def test_the_penalty_pushes_no_harder_than_the_data():
    """The mean of its gradients is `push` times that of the data's, however
    far the cost is above the budget."""
    model, state, control = begun({"push": 3.0, "rate": 1.0})
    state.step.assign(60)
    rng = np.random.default_rng(0)
    for gate in tiny.gates(model):
        seen = rng.uniform(0, 1e-4, tiny.WIDTH)
        gate.observation.assign(seen.astype("float32"))
    pushes = []
    for i, gate in enumerate(tiny.gates(model)):

        def at(x, gate=gate):
            mapping = [(gate.log_alpha, x)]
            with keras.StatelessScope(state_mapping=mapping):
                return control.loss(state)

        pushes.append(gradient(at, numpy(gate.log_alpha)))
        assert np.sum(pushes[i] == 0.0) <= 1  # The channel that is kept.
    pushes = np.concatenate(pushes)
    data = [np.sqrt(numpy(gate.observation)) for gate in tiny.gates(model)]
    mean = np.mean(pushes[pushes > 0])
    assert mean == pytest.approx(3.0 * np.mean(data), rel=0.05)


def test_the_bound_leaves_the_observation_alone():
    """Its gradient is what it will hold: the data's, and nothing else."""
    model, state, control = begun({"rate": 1.0})
    state.step.assign(60)  # The bound is in force.
    gate = tiny.gates(model)[0]

    def at(x):
        mapping = [(gate.observation, x)]
        with keras.StatelessScope(state_mapping=mapping):
            return control.loss(state) + 0.0 * ops.sum(x)

    assert not np.any(gradient(at, np.full(tiny.WIDTH, 1e-4, "float32")))


def test_the_barrier_looks_ahead():
    _, state, control = begun({"lead": 0.1})
    _, at_once, plain = begun({"lead": 0.0})
    state.step.assign(20)
    at_once.step.assign(30)
    soft = control.budget.soft_cost()
    assert float(numpy(control.barrier(state, soft))) == pytest.approx(
        float(numpy(plain.barrier(at_once, soft)))
    )


def test_gates_that_hover_do_not_please_the_barrier():
    """Just below the line, no gate counts as alive, and all still work."""
    penalties = {}
    for counted in ("alive", "larger"):
        settings = {"counted": counted, "rate": 1.0, "push": None}
        model, state, control = begun(settings, budget=0.25)
        for gate in tiny.gates(model):
            gate.log_alpha.assign(np.full(tiny.WIDTH, CENTER - 0.01))
        state.step.assign(98)
        penalties[counted] = float(numpy(control.loss(state)))
    assert penalties["alive"] == 0 < penalties["larger"]


def test_the_slope_grows_around_the_closing_point():
    model, state, control = begun({"sharpness": 4.0, "rate": 2.0}, steps=20)
    gate = tiny.gates(model)[0]
    gate.log_alpha.assign(
        np.linspace(CENTER / 2, 1, tiny.WIDTH).astype("float32")
    )
    (_, *start) = locations(model)[0][:-1] - CENTER
    for step in range(21):
        state.step.assign(step - 1)
        parity = (step - 1) % 2 == 0
        state.signal.assign([1.0, float(parity), float(not parity)])
        control(state, ops.convert_to_tensor(True))
    closing, *end = locations(model)[0][:-1] - CENTER
    assert float(numpy(gate.slope)) == pytest.approx(8.0, rel=1e-2)
    assert closing == pytest.approx(0.0, abs=1e-4)
    np.testing.assert_allclose(end, 4.0 * np.array(start), rtol=2e-2)


def test_cost_is_never_0():
    """A penalty that drowns the data closes all but what connects."""
    model = tiny.student(optimizer=keras.optimizers.Adam(1e-2), loss=nothing)
    regularizer = BudgetRegularizer.paper(
        0.5, strength=1e3, rate=40.0, push=None
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(model, regularizer, epochs=5, steps_per_epoch=4)
    assert min(logs["volume"]) > 0
    assert_connected(model)
    for gate in tiny.gates(model):  # The rate was in force.
        assert float(numpy(gate.slope)) == 40.0
        assert np.max(np.abs(numpy(gate.log_alpha))) < 20 * 0.02


def test_the_strongest_channel_of_a_required_gate_stays_open():
    """However far the gates have sunk; the branch is not required."""
    model, state, control = begun({"rate": 2.0})
    stem, branch = tiny.gates(model)
    for gate in (stem, branch):
        gate.log_alpha.assign(np.linspace(-9, -8, tiny.WIDTH))
    control(state)
    assert list(numpy(stem.alive())) == [False] * (tiny.WIDTH - 1) + [True]
    assert numpy(stem.probability())[-1] > 0.98
    assert not np.any(branch.alive())
    assert float(numpy(control.budget.hard_cost())) == tiny.POSITIONS
