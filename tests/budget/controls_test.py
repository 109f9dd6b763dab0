"""Pruning to a budget: the paper's penalty, and all ways to train."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

import keras_bar
from keras_bar.layers import BudgetState
from tests.helpers import tiny
from tests.helpers.budgets import EPOCHS
from tests.helpers.budgets import LOGS
from tests.helpers.budgets import QUICK
from tests.helpers.budgets import BudgetRegularizer
from tests.helpers.budgets import Interrupt
from tests.helpers.budgets import assert_finished
from tests.helpers.budgets import nothing
from tests.helpers.budgets import numpy
from tests.helpers.gradients import gradient

backend = keras.backend.backend()
slow = pytest.mark.slow
not_torch = pytest.mark.skipif(backend == "torch", reason="not in Keras")
not_jax = pytest.mark.skipif(
    backend == "jax", reason="every training of these tests is compiled"
)


# --- The paper's penalty --------------------------------------------------


def by_hand(log_alphas, target, step, steps, strength, counted="alive"):
    """`strength * f(V, a, b) * L_S` in float64."""
    log_alphas = log_alphas.astype("float64")
    if step:  # From then on the strongest channel of each gate is kept open.
        log_alphas[[0, 1], log_alphas.argmax(1)] = 3.0
    location = np.concatenate(log_alphas)
    p = 1 / (1 + np.exp(-(location - 2 / 3 * np.log(0.1 / 1.1))))
    area = tiny.POSITIONS
    hard, soft = area * np.sum(p > 0.5), area * np.sum(p)
    cost = {"alive": hard, "expected": soft, "larger": max(hard, soft)}[counted]
    lower = target - 1e-4 * tiny.VOLUME
    t = step / steps
    delta = 1 / (1 + np.exp(5))
    done = (1 / (1 + np.exp(-10 * (t - 0.5))) - delta) / (1 - 2 * delta)
    upper = (1 - done) * 1.01 * tiny.VOLUME + done * target
    r = max(0.0, (cost - lower) / (upper - lower))
    barrier = min(r * r / (1 - r), 1e10) if cost < upper else 1e10
    return strength * barrier * soft


@pytest.mark.core
@pytest.mark.parametrize(
    "counted, closed, free",
    [
        pytest.param("alive", 0, False, marks=slow),
        ("alive", 9, False),
        ("alive", 23, True),
        ("expected", 9, False),
        pytest.param("expected", 23, True, marks=slow),
        ("larger", 9, False),
    ],
)
def test_paper_penalty_is_strength_times_barrier_times_cost(
    counted, closed, free
):
    sgd = keras.optimizers.SGD(0.0)
    model = tiny.student(optimizer=sgd, loss=nothing, **QUICK)
    rng = np.random.default_rng(1)
    log_alphas = rng.uniform(-1, 3, (2, tiny.WIDTH)).astype("float32")
    log_alphas.flat[1 : closed + 1] = -4.0
    for gate, values in zip(tiny.gates(model), log_alphas, strict=True):
        gate.log_alpha.assign(values)
    settings = {"samples": 8, "counted": counted, "push": None, "lead": 0.0}
    regularizer = BudgetRegularizer.paper(
        0.5, strength=8e-3, steps=10, **settings
    )
    logs = tiny.fit(model, regularizer, steps_per_epoch=1, epochs=3)
    full, target = tiny.VOLUME, 0.5 * tiny.VOLUME
    for step, loss in enumerate(logs["loss"]):
        expected = by_hand(log_alphas, target, step, 10, 1e-3, counted)
        assert loss == pytest.approx(expected, rel=1e-3, abs=1e-6)
        assert (loss == 0) == free
        later = by_hand(log_alphas, target, step + 1, 10, 1e-3, counted)
        assert logs["penalty"][step] == pytest.approx(later, rel=1e-3, abs=1e-6)
    assert full == keras_bar.measure_cost(tiny.network()).volume


@pytest.mark.core
def test_paper_penalty_has_the_gradient_of_its_finite_differences():
    model = tiny.student()
    regularizer = BudgetRegularizer.paper(
        0.5,
        "flops",
        strength=1e-3,
        steps=10,
        counted="alive",
        push=None,
    )
    regularizer.set_model(model)
    gate = tiny.gates(model)[0]
    (state,) = (x for x in model.layers if isinstance(x, BudgetState))
    state.step.assign(4)
    penalty = regularizer.make_control(steps=10)

    def at(log_alpha):
        with keras.StatelessScope(state_mapping=[(gate.log_alpha, log_alpha)]):
            return penalty(state)

    x = np.linspace(-1.2, 2, tiny.WIDTH).astype("float32")
    expected = []
    for i in range(tiny.WIDTH):
        step = 0.05 * np.eye(tiny.WIDTH, dtype="float32")[i]
        ends = [
            float(numpy(at(ops.convert_to_tensor(x + sign * step))))
            for sign in (1, -1)
        ]
        expected.append((ends[0] - ends[1]) / 0.1)
    result = gradient(at, x)
    assert np.all(result[:-1] > 0)
    # The strongest channel stays open: there is nothing to be saved by it.
    assert result[-1] == 0 < expected[-1]
    expected[-1] = 0.0
    np.testing.assert_allclose(result, expected, rtol=2e-2)


@pytest.mark.core
def test_paper_penalty_prunes():
    model = tiny.student(optimizer=keras.optimizers.Adam(5e-2))
    logs = tiny.fit(model, BudgetRegularizer.paper(0.5), epochs=EPOCHS)
    assert_finished(model, 0.5)
    # The volume follows b(t), which begins above the full volume, to a channel.
    volume, budget = np.array(logs["volume"]), np.array(logs["budget"])
    channel = tiny.POSITIONS / tiny.VOLUME
    assert np.all(volume <= np.minimum(budget + channel, 1.0))
    assert np.all(np.diff(volume) > -0.2)
    assert logs["expected"][-1] < 0.6 < logs["expected"][0]
    assert np.all(np.isfinite(logs["loss"]))


def test_paper_starts_as_the_paper_does():
    model = tiny.student(**QUICK)
    before = [numpy(gate.log_alpha) for gate in tiny.gates(model)]
    assert all(np.all((0 <= x) & (x <= 0.01)) for x in before)
    options = {"epochs": 2, "steps_per_epoch": 3}
    with pytest.raises(InterruptedError):
        tiny.fit(model, BudgetRegularizer(0.5), Interrupt(1), **options)
    regularizer = BudgetRegularizer.paper(0.5)
    regularizer.set_model(model)
    for gate in tiny.gates(model):
        location, log_alpha = numpy(gate.location()), numpy(gate.log_alpha)
        np.testing.assert_array_equal(location, log_alpha)


# --- Ways to train --------------------------------------------------------


@not_torch
@pytest.mark.core
@pytest.mark.parametrize(
    ("options", "strength"),
    [
        ({"steps_per_execution": 8}, None),
        # Compiled by XLA is also the training of multilayer perceptrons.
        pytest.param({"jit_compile": True}, None, marks=[not_jax, slow]),
        pytest.param({"jit_compile": True}, 1e-5, marks=[not_jax, slow]),
    ],
    ids=["steps_per_execution", "jit_compile", "jit_compile_penalty"],
)
def test_ways_to_compile(options, strength):
    model = tiny.student(**options)
    regularizer = BudgetRegularizer(0.5, strength=strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = tiny.fit(model, regularizer, epochs=4)
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert logs["budget"][-1] == pytest.approx(0.5)
    assert np.all(np.isfinite([logs[name] for name in LOGS]))


def test_eager_steps():
    model = tiny.student(run_eagerly=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), epochs=2, steps_per_epoch=2)
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4


@pytest.mark.parametrize(
    ("policy", "strength"),
    [
        pytest.param("mixed_bfloat16", None, marks=slow),
        ("mixed_float16", None),
        pytest.param("mixed_float16", 1e-5, marks=slow),
    ],
)
def test_mixed_precision(policy, strength):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = tiny.student()
        regularizer = BudgetRegularizer(0.5, strength=strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            logs = tiny.fit(model, regularizer, epochs=4)
        scaled = hasattr(model.optimizer, "inner_optimizer")
    finally:
        keras.config.set_dtype_policy(before)
    assert scaled == (policy == "mixed_float16")
    assert model.get_layer("stem").compute_dtype == policy.split("_")[1]
    for gate in tiny.gates(model):
        assert gate.log_alpha.dtype == "float32"
    assert_finished(model, 0.5)
    assert tiny.steps_done(model) == 4 * tiny.BATCHES
    assert np.all(np.isfinite([logs[name] for name in ["loss", *LOGS]]))
    if strength is None:
        assert logs["expected"][-1] == pytest.approx(0.5, abs=0.1)


def test_gated_model_within_a_model():
    student = tiny.student()
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), keras.layers.GaussianNoise(0.1), student]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.prepare(model, **QUICK)
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    assert_finished(student, 0.5)
    assert tiny.steps_done(student) == 2


def test_params_of_a_network_for_images_of_any_size():
    teacher = tiny.network(size=None)
    model = tiny.prepare(keras_bar.gate(teacher, seed=0), **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5, "params"), steps_per_epoch=2)
    params = keras_bar.compact(model).count_params()
    # One more channel may not fit.
    assert 0.92 * 0.5 <= params / teacher.count_params() <= 0.5


# --- Weight decay ---------------------------------------------------------


def decayed(optimizer, model):
    return {
        x.path
        for x in model.trainable_variables
        if optimizer._use_weight_decay(x)
    }


@pytest.mark.parametrize("scaled", [False, True])
def test_gates_are_exempt_from_weight_decay(scaled):
    adamw = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    model = tiny.student()
    kept_by_user = model.get_layer("stem").kernel
    adamw.exclude_from_weight_decay([kept_by_user], ["bias"])
    tiny.prepare(
        model,
        keras.optimizers.LossScaleOptimizer(adamw) if scaled else adamw,
        **QUICK,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    paths = decayed(adamw, model)
    assert not any("log_alpha" in path for path in paths)
    assert kept_by_user.path not in paths
    assert model.get_layer("logits").bias.path not in paths
    assert model.get_layer("branch").kernel.path in paths


def test_weight_decay_of_several_optimizers():
    adamw = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
    several = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(
            keras.optimizers.SGD(0.1), {".*log_alpha": adamw}
        )
    )
    model = tiny.student(optimizer=several, **QUICK)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.fit(model, BudgetRegularizer(0.5), steps_per_epoch=2)
    assert not any("log_alpha" in x for x in decayed(adamw, model))
