"""KerasTuner drives the budget, and sees what it costs."""

import pathlib

import keras
import numpy as np
import pytest

import keras_bar
from keras_bar.callbacks import BudgetRegularizer
from tests.helpers import tiny

keras_tuner = pytest.importorskip("keras_tuner")

from keras_bar import tuning  # noqa: E402

BUDGET = 0.5
EPOCHS = 5


def build(hp):
    """A gated network with a learning rate to be found."""
    keras.utils.set_random_seed(0)
    model = keras_bar.gate(tiny.network(), seed=0)
    rate = hp.Choice("rate", [0.03, 0.3])
    return tiny.prepare(model, keras.optimizers.SGD(rate), metrics=["accuracy"])


def distill(hp):
    """The same as the student of a teacher."""
    keras.utils.set_random_seed(0)
    student = keras_bar.gate(tiny.network(), seed=0)
    model = keras_bar.distillation.Distiller(
        tiny.network(),
        student,
        keras_bar.distillation.LogitsDistillation(
            temperature=hp.Float("temperature", 2.0, 6.0)
        ),
    )
    return tiny.prepare(model, metrics=["accuracy"])


def search(tuner, **kwargs):
    x, y = tiny.data()
    tuner.search(
        x, y, batch_size=8, verbose=0, validation_data=(x, y), **kwargs
    )
    return tuner


def make_tuner(kind, folder, hypermodel, objective="val_accuracy", **kwargs):
    direction = "max" if objective == "val_accuracy" else "min"
    return kind(
        hypermodel,
        objective=keras_tuner.Objective(objective, direction),
        seed=1,
        directory=folder,
        project_name="tuning",
        **kwargs,
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["volume", "val_loss"])
def test_a_function_and_a_callback(tmp_path, objective):
    tuner = make_tuner(
        keras_tuner.RandomSearch, tmp_path, build, objective, max_trials=2
    )
    regularizer = BudgetRegularizer(BUDGET, log_all=True)
    search(tuner, epochs=EPOCHS, callbacks=[regularizer])
    trials = tuner.oracle.get_best_trials(2)
    assert {x.hyperparameters.get("rate") for x in trials} == {0.03, 0.3}
    for trial in trials:
        for name in ("volume", "flops", "params", "budget", "expected"):
            assert trial.metrics.exists(name)
    scores = [x.score for x in trials]
    assert scores == sorted(scores)
    if objective == "volume":
        # The callback is copied for every trial, and starts anew in each.
        assert all(0.4 < x <= 0.6 for x in scores)
        for trial in trials:
            (best,) = trial.metrics.get_history("budget")[-1].value
            assert best == pytest.approx(0.5, abs=0.1)


class Logged(tuning.PruningHyperModel):
    """Remembers the budgets of every training."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.budgets = []

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        budgets = []
        self.budgets.append(budgets)
        record = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: budgets.append(logs["budget"])
        )
        result = super().fit(
            hp, model, *args, callbacks=[*callbacks, record], **kwargs
        )
        assert len(budgets) == kwargs["epochs"]
        return result


def assert_pruned(model):
    """That a model a tuner has kept is within the budget, and compacts."""
    student = getattr(model, "student", model)
    cost = keras_bar.measure_cost(student)
    assert 0.4 * tiny.VOLUME < cost.volume <= BUDGET * tiny.VOLUME
    small = keras_bar.compact(student)
    x, _ = tiny.data()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(small(x)),
        keras.ops.convert_to_numpy(student(x)),
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (
            keras_tuner.BayesianOptimization,
            {"max_trials": 3, "num_initial_points": 2},
        ),
        (keras_tuner.RandomSearch, {"max_trials": 2}),
    ],
)
def test_what_a_tuner_keeps_is_pruned(tmp_path, kind, settings):
    hypermodel = Logged(
        distill,
        BUDGET,
        settings=lambda hp: {"hardness": hp.Float("hardness", 5.0, 15.0)},
    )
    tuner = make_tuner(kind, tmp_path, hypermodel, **settings)
    names = {"hardness", "temperature"}
    assert {x.name for x in tuner.oracle.get_space().space} == names
    search(tuner, epochs=EPOCHS)
    trials = tuner.oracle.get_best_trials(9)
    assert len(trials) == settings["max_trials"]
    for trial in trials:
        assert trial.hyperparameters.get("hardness") != 5.0
        assert set(trial.hyperparameters.values) == names
        # The last epoch counts, not an early one.
        (budget,) = trial.metrics.get_history("budget")[-1].value
        assert budget == pytest.approx(BUDGET)
    best = tuner.get_best_models()[0]
    assert_pruned(best)
    x, y = tiny.data()
    accuracy = best.evaluate(x, y, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(trials[0].score, abs=1e-6)


@pytest.mark.slow
def test_hyperband_begins_a_longer_budget_anew(tmp_path):
    hypermodel = Logged(
        build,
        BUDGET,
        settings=lambda hp: {"hardness": hp.Float("hardness", 5.0, 15.0)},
    )
    tuner = make_tuner(
        keras_tuner.Hyperband, tmp_path, hypermodel, max_epochs=2, factor=2
    )
    search(tuner)
    trials = tuner.oracle.trials.values()
    continued = [
        x for x in trials if "tuner/trial_id" in x.hyperparameters.values
    ]
    assert continued
    assert {len(x) for x in hypermodel.budgets} == {1, 2}
    for budgets in hypermodel.budgets:
        assert budgets == sorted(budgets, reverse=True)
        assert budgets[-1] == pytest.approx(BUDGET)
        if len(budgets) == 2:
            assert budgets[0] > 0.6
    assert_pruned(tuner.get_best_models()[0])


@pytest.mark.slow
def test_a_continued_trial_equals_a_longer_one():
    """As if it had been that long from the beginning."""
    hp = keras_tuner.HyperParameters()
    hypermodel = tuning.PruningHyperModel(build, BUDGET)
    x, y = tiny.data()
    options = {"batch_size": 8, "verbose": 0, "shuffle": False}
    expected = hypermodel.build(hp)
    logs = hypermodel.fit(hp, expected, x, y, epochs=4, **options)
    found = hypermodel.build(hp)
    hypermodel.fit(hp, found, x, y, epochs=2, **options)
    again = hypermodel.fit(
        hp, found, x, y, epochs=4, initial_epoch=2, **options
    )
    assert again == pytest.approx(logs)
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def epochs(tmp_path_factory):
    """A folder with the weights of the epochs of a training."""
    folder = tmp_path_factory.mktemp("epochs")
    save = keras.callbacks.ModelCheckpoint(
        folder / "{epoch}.weights.h5", save_weights_only=True
    )
    model = build(keras_tuner.HyperParameters())
    tiny.fit(model, BudgetRegularizer(BUDGET), save, epochs=4)
    return folder


@pytest.mark.parametrize("kept", [1, 4])
def test_without_the_hypermodel_a_continued_trial_goes_on(epochs, kept):
    """With the weights of the epoch that the tuner has kept: an early one, or
    the last one, which is pruned."""
    continued = build(keras_tuner.HyperParameters())
    continued.load_weights(epochs / f"{kept}.weights.h5")
    logs = tiny.fit(
        continued, BudgetRegularizer(BUDGET), epochs=8, initial_epoch=4
    )
    assert logs["budget"] == sorted(logs["budget"], reverse=True)
    assert (logs["budget"][0] > 0.6) == (kept == 1)
    assert_pruned(continued)


def test_draws_are_uniform_around_the_tuned_values():
    hp = keras_tuner.HyperParameters()
    centers = {name: x.center for name, x in tuning.INTERVALS.items()}
    assert tuning.draw(hp) == pytest.approx(centers)
    assert len(hp.space) == 7
    for parameter in hp.space:
        interval = tuning.INTERVALS[parameter.name]
        drawn = [parameter.random_sample(seed) for seed in range(400)]
        share = (np.sort(drawn) - interval.least) / interval.width
        # Kolmogorov and Smirnov's distance to the uniform distribution.
        assert np.abs(share - np.linspace(0, 1, 400)).max() < 0.1


@pytest.mark.parametrize(
    "intervals", [tuning.INTERVALS, tuning.PAPER_INTERVALS]
)
def test_intervals_are_those_of_the_supplement(intervals):
    assert len(intervals) == 7
    assert {x.width for x in intervals.values()} == {1e-5, 0.2, 1.0}
    known = {"learning_rate", "weight_decay"}
    known |= {"distillation_weight", "temperature"}
    for end in ("least", "greatest"):
        settings = {
            name: getattr(x, end)
            for name, x in intervals.items()
            if name not in known
        }
        BudgetRegularizer(BUDGET, **settings)


@pytest.mark.usefixtures("without_xla")
def test_the_example_of_the_documentation(tmp_path, monkeypatch):
    """As it is written, but shorter."""
    monkeypatch.chdir(tmp_path)
    tiny.network().save("my_model.keras")
    page = pathlib.Path(__file__).parents[1] / "docs" / "tuning.md"
    code = page.read_text().split("```python\n")[1].split("```")[0]
    for long, short in (("max_trials=20", "max_trials=2"), ("=20,", "=5,")):
        assert code.count(long) == 1
        code = code.replace(long, short)
    x, y = tiny.data()
    names = {"x": x, "y": y, "x_val": x, "y_val": y}
    exec(compile(code, str(page), "exec"), names)
    cost = keras_bar.measure_cost(names["small"])
    assert 0 < cost.volume <= tiny.VOLUME / 8
    for trial in names["tuner"].oracle.get_best_trials(2):
        # The last epoch counts, not an early one.
        (budget,) = trial.metrics.get_history("budget")[-1].value
        assert budget == pytest.approx(1 / 8)


def test_callbacks_that_end_too_early():
    hypermodel = tuning.PruningHyperModel(build, BUDGET)
    hp = keras_tuner.HyperParameters()
    x, y = tiny.data()
    stop = keras.callbacks.EarlyStopping(restore_best_weights=True)
    with pytest.raises(ValueError, match="without `EarlyStopping`"):
        hypermodel.fit(hp, hypermodel.build(hp), x, y, callbacks=[stop])


def test_wrong_arguments():
    with pytest.raises(ValueError, match="Expected a function"):
        tuning.PruningHyperModel(None, BUDGET)
    with pytest.raises(ValueError, match="budget"):
        tuning.PruningHyperModel(build, 0.0)
    with pytest.raises(ValueError, match="metric"):
        tuning.PruningHyperModel(build, BUDGET, "joules")
