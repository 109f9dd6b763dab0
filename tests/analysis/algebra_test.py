import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_bar.analysis.algebra import ABSENT
from keras_bar.analysis.algebra import Algebra
from keras_bar.analysis.evaluation import Evaluation
from keras_bar.analysis.evaluation import evaluate
from tests.helpers.gradients import gradient

pytestmark = pytest.mark.core


@pytest.fixture
def algebra():
    return Algebra()


def value(expression, xp=np, **gates):
    """Value of an expression at gates given by name."""
    gates = {
        key: np.asarray(x, "float32") if xp is np else x
        for key, x in gates.items()
    }
    return evaluate([expression], gates, xp)[expression]


def expected(expression, **probabilities):
    """Probability of each channel by going through all outcomes."""
    names = [
        (key, i) for key, p in probabilities.items() for i in range(len(p))
    ]
    total = 0.0
    for outcome in itertools.product((0, 1), repeat=len(names)):
        masks = {key: np.zeros(len(p)) for key, p in probabilities.items()}
        weight = 1.0
        for (key, i), alive in zip(names, outcome, strict=True):
            masks[key][i] = alive
            p = probabilities[key][i]
            weight *= p if alive else 1 - p
        total = total + weight * value(expression, **masks)
    return total


def test_equal_expressions_are_one_object(algebra):
    a, b = algebra.gate("a", 3), algebra.gate("b", 3)
    assert algebra.gate("a", 3) is a
    assert algebra.conjunction(a, b) is algebra.conjunction(b, a)
    assert algebra.disjunction(a, b) is not algebra.conjunction(a, b)


def test_simplifications(algebra):
    a, b, c = (algebra.gate(name, 4) for name in "abc")
    both, either = algebra.conjunction(a, b), algebra.disjunction(a, b)
    assert algebra.conjunction(a, algebra.full) is a
    assert algebra.conjunction(algebra.full) is algebra.full
    assert algebra.disjunction(a, algebra.full) is algebra.full
    assert algebra.conjunction(both, a) is both
    assert algebra.disjunction(either, b) is either
    assert algebra.conjunction(a, either) is a
    assert algebra.disjunction(a, both) is a
    assert algebra.conjunction(either, algebra.disjunction(a, b, c)) is either
    assert algebra.disjunction(both, algebra.conjunction(a, b, c)) is both


def test_single_values_leave_any(algebra):
    a = algebra.gate("a", 4)
    single = algebra.any(algebra.gate("b", 4))
    found = algebra.any(algebra.conjunction(a, single))
    assert found is algebra.conjunction(algebra.any(a), single)
    assert algebra.disjunction(single, found) is single


def test_what_follows_from_a_channel_is_dropped(algebra):
    a, b = algebra.gate("a", 4), algebra.gate("b", 4)
    assert algebra.conjunction(a, algebra.any(a)) is a
    both = algebra.conjunction(a, b)
    assert algebra.conjunction(both, algebra.any(both)) is both
    either = algebra.disjunction(algebra.any(a), algebra.any(b))
    assert algebra.conjunction(a, either) is a
    kept = algebra.conjunction(a, algebra.any(b))
    assert kept.kind == "and"
    assert algebra.conjunction(a, algebra.any(both)) is not a


def test_concatenation_and_its_parts(algebra):
    a, b = algebra.gate("a", 2), algebra.gate("b", 3)
    whole = algebra.concatenate([a, algebra.full, b], [2, 1, 3])
    assert whole.size == 6
    assert algebra.take(whole, [0, 1]) is a
    assert algebra.take(whole, [3, 4, 5]) is b
    assert algebra.take(whole, [2]) is algebra.full
    masked = algebra.conjunction(whole, algebra.gate("c", 6))
    part = algebra.take(masked, [0, 1])
    # The gate a reaches its channels along two paths and counts once.
    assert a in algebra.conjunction(part, a).operands
    np.testing.assert_array_equal(
        value(whole, a=[1, 0], b=[0, 0, 1]), [1, 0, 1, 0, 0, 1]
    )
    everything = algebra.concatenate([algebra.full] * 2, [2, 3])
    assert everything is algebra.full


def test_take(algebra):
    a = algebra.gate("a", 3)
    assert algebra.take(a, [0, 1, 2]) is a
    assert algebra.take(algebra.full, [0, 0]) is algebra.full
    spread = algebra.take(a, [2, ABSENT, 0, 1])
    np.testing.assert_array_equal(value(spread, a=[0, 1, 1]), [1, 0, 0, 1])
    assert algebra.take(spread, [2, 3, 0]) is a
    placed = algebra.take(algebra.full, [ABSENT, 0, 0])
    np.testing.assert_array_equal(value(placed), [0, 1, 1])


def test_any_of_groups(algebra):
    a = algebra.gate("a", 4)
    pairs = algebra.any_of(a, 2)
    np.testing.assert_array_equal(value(pairs, a=[0, 1, 0, 0]), [1, 0])
    b = algebra.gate("b", 2)
    repeated = algebra.take(b, [0, 0, 1, 1])
    assert algebra.any_of(repeated, 2) is b
    mixed = algebra.any_of(algebra.conjunction(repeated, a), 2)
    assert mixed is algebra.conjunction(b, pairs)


@pytest.mark.parametrize("smaller", [[1, 0, 1], [1, 1, 1], [0, 0, 0]])
def test_exceeds(algebra, smaller):
    a, single = algebra.gate("a", 3), algebra.any(algebra.gate("b", 2))
    exceeds = algebra.exceeds(algebra.full, a)
    assert value(exceeds, a=smaller) == (not all(smaller))
    within = algebra.exceeds(a, algebra.conjunction(a, single))
    for b in ([0, 0], [0, 1]):
        found = value(within, a=smaller, b=b)
        assert found == (any(smaller) and not any(b))


def test_soft_values_are_probabilities(algebra):
    """The soft value is the exact probability wherever no gate is repeated."""
    a, b = algebra.gate("a", 3), algebra.gate("b", 3)
    p = {"a": np.array([0.1, 0.5, 0.9]), "b": np.array([0.3, 0.6, 1.0])}
    for expression in (
        a,
        algebra.conjunction(a, b),
        algebra.disjunction(a, b),
        algebra.any(a),
        algebra.any(algebra.disjunction(a, b)),
        algebra.any(algebra.concatenate([a, b], [3, 3])),
        algebra.exceeds(algebra.full, a),
    ):
        np.testing.assert_allclose(
            value(expression, **p), expected(expression, **p), rtol=1e-6
        )


def test_a_gate_on_two_paths_counts_once(algebra):
    a, b = algebra.gate("a", 2), algebra.gate("b", 2)
    stream = algebra.disjunction(a, b)
    twice = algebra.conjunction(stream, algebra.disjunction(b, a), stream)
    p = {"a": np.array([0.5, 0.2]), "b": np.array([0.5, 0.7])}
    np.testing.assert_allclose(value(twice, **p), [0.75, 0.76])


def test_zero_and_one_are_exact_and_the_ends_differentiable(algebra):
    a = algebra.gate("a", 3)
    single = algebra.any(a)
    one = ops.convert_to_tensor(np.array([1.0, 0.0, 1.0], "float32"))
    assert float(value(single, ops, a=one)[0]) == 1.0
    zeros = ops.zeros((3,))
    assert float(value(single, ops, a=zeros)[0]) == 0.0
    slope = gradient(lambda p: value(single, ops, a=p), [0.2, 0.0, 0.9])
    np.testing.assert_allclose(slope, [0.1, 0.08, 0.8], rtol=1e-4)
    for end in (0.0, 1.0):
        slope = gradient(lambda p: value(single, ops, a=p), [end] * 3)
        assert np.all(np.isfinite(slope))


def test_many_channels_do_not_underflow(algebra):
    a = algebra.gate("a", 2000)
    p = np.full(2000, 0.9, "float32")
    slope = gradient(lambda p: value(algebra.any(a), ops, a=p), p)
    assert np.all(np.isfinite(slope))
    assert float(value(algebra.any(a), a=p)[0]) == 1.0


def test_backends_agree_with_numpy(algebra):
    a, b = algebra.gate("a", 2), algebra.gate("b", 4)
    expression = algebra.disjunction(
        algebra.take(a, [0, 0, ABSENT, 1]),
        algebra.conjunction(b, algebra.any(a)),
        algebra.take(algebra.any_of(b, 2), [0, 1, 1, 0]),
    )
    p = {"a": np.array([0.2, 0.8]), "b": np.array([0.1, 0.4, 0.7, 0.9])}
    tensors = {
        key: keras.ops.convert_to_tensor(x, "float32") for key, x in p.items()
    }
    np.testing.assert_allclose(
        ops.convert_to_numpy(value(expression, ops, **tensors)),
        value(expression, **p),
        rtol=1e-5,
    )


def test_vectors_without_gates_are_one_expression(algebra):
    left, right = algebra.constant([1, 1, 0, 0]), algebra.constant([0, 1, 1, 0])
    values = evaluate(
        [
            both := algebra.conjunction(left, right),
            either := algebra.disjunction(left, right),
            algebra.any(left),
            groups := algebra.any_of(either, 2),
            row := algebra.concatenate([left, algebra.full], [4, 2]),
            moved := algebra.take(either, [3, ABSENT, 0]),
        ],
        {},
    )
    assert list(values[both]) == [0, 1, 0, 0]
    assert list(values[either]) == [1, 1, 1, 0]
    assert list(values[row]) == [1, 1, 0, 0, 1, 1]
    assert list(values[moved]) == [0, 0, 1]
    assert algebra.any(left) is groups is algebra.full
    assert either is algebra.constant([1, 1, 1, 0])
    assert algebra.disjunction(either, algebra.constant([0, 0, 0, 1])) is (
        algebra.full
    )
    gate = algebra.gate("a", 4)
    mixed = algebra.disjunction(left, gate, right)
    assert len(mixed.operands) == 2
    alive = evaluate([mixed], {"a": np.array([0, 0, 0, 1])})[mixed]
    assert list(alive) == [1, 1, 1, 1]


def test_changes_are_those_of_another_evaluation(algebra):
    a, b, c = (algebra.gate(name, 4) for name in "abc")
    either = algebra.disjunction(a, b)
    reached = algebra.conjunction(algebra.any(either), c)
    expressions = [reached, algebra.take(either, [2, 0]), algebra.any(c)]
    before = {"a": np.eye(4)[0], "b": np.eye(4)[1], "c": np.ones(4)}
    evaluation = Evaluation(expressions, before)
    for change in (
        {"a": np.eye(4)[3]},
        {"a": np.zeros(4)},
        {"a": np.zeros(4), "b": np.zeros(4)},
        {"c": np.zeros(4)},
        {},
    ):
        expected = evaluate(expressions, before | change)
        changes = evaluation.changes(change)
        for x, y in expected.items():
            is_same = np.array_equal(y, evaluation.values[x])
            assert (x in changes) != is_same
            np.testing.assert_array_equal(changes.get(x, y), y)


def test_what_depends_on_equal_values_does_not_change(algebra):
    a, b = algebra.gate("a", 2), algebra.gate("b", 2)
    reached = algebra.any(algebra.disjunction(a, b))
    gates = {"a": np.array([1.0, 0.0]), "b": np.array([0.0, 1.0])}
    evaluation = Evaluation([reached], gates)
    changes = evaluation.changes({"a": np.zeros(2)})
    assert a in changes
    assert reached not in changes
