"""One-shot pruning: the criteria, and what is left."""

import keras
import numpy as np
import pytest
from keras import layers
from keras import ops

import keras_bar
from keras_bar import baselines
from tests.helpers import pruning
from tests.helpers import tiny

core = pytest.mark.core
IMAGES = np.random.default_rng(0).random((12, 8, 8, 3), "float32")


def residual():
    """One residual block of 8 channels, as after training."""
    return pruning.randomize(tiny.network(8))


@pytest.fixture(scope="module")
def network():
    """A model that no test changes."""
    return residual()


def every_kernel():
    """A layer of each kind that writes channels, one after the other."""
    x = inputs = keras.Input((8, 8, 2))
    x = layers.Conv2D(6, 3, name="plain")(x)
    x = layers.Conv2DTranspose(4, 2, name="transposed")(layers.ReLU()(x))
    x = layers.BatchNormalization()(layers.SeparableConv2D(6, 3, name="sep")(x))
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return pruning.randomize(keras.Model(inputs, layers.Dense(2)(x)))


def wide_resnet():
    return keras_bar.models.WideResNet(10, 0.5, (8, 8, 3))


def seen_by(criterion, model, **options):
    """The channels that a criterion is asked about, by name."""
    return pruning.asked(model, criterion, **options)[0]


@core
def test_filters_make_the_channels():
    model = every_kernel()
    seen = seen_by(baselines.weight_magnitude, model)
    for name, kernel, axis in (
        ("plain", model.get_layer("plain").kernel, 3),
        ("transposed", model.get_layer("transposed").kernel, 2),
        ("sep", model.get_layer("sep").pointwise_kernel, 3),
    ):
        kernel = np.moveaxis(ops.convert_to_numpy(kernel), axis, -1)
        norms = np.sqrt(np.square(kernel).sum((0, 1, 2)))
        found = baselines.weight_magnitude(seen[name])
        np.testing.assert_allclose(found, norms, rtol=1e-5)
        assert seen[name].size == len(norms)


@core
def test_depthwise_filters():
    inputs = keras.Input((6, 6, 2))
    x = layers.DepthwiseConv2D(3, depth_multiplier=3, name="deep")(inputs)
    x = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = pruning.randomize(keras.Model(inputs, x))
    seen = seen_by(baselines.weight_magnitude, model)["deep"]
    kernel = ops.convert_to_numpy(model.get_layer("deep").kernel)
    # Output channel 3 i + j is made from input channel i by kernel j.
    expected = [kernel[:, :, c // 3, c % 3].reshape(-1) for c in range(6)]
    np.testing.assert_array_equal(seen.filters[0].T, expected)


@core
def test_writers_of_a_stream_are_judged_together():
    """By the mean over them: the score does not grow with their number."""
    model = residual()
    seen = seen_by(baselines.weight_magnitude, model)
    assert set(seen) == {"stem"}
    assert len(seen["stem"].filters) == 2
    own = seen_by(baselines.weight_magnitude, model, connectivity="mixed")
    assert set(own) == {"stem", "branch"}
    squares = [np.square(baselines.weight_magnitude(x)) for x in own.values()]
    np.testing.assert_allclose(
        np.square(baselines.weight_magnitude(seen["stem"])),
        np.mean(squares, axis=0),
        rtol=1e-5,
    )


@core
@pytest.mark.parametrize(
    ("scope", "connectivity"), [("layer", "mixed"), ("global", "regular")]
)
def test_channels_without_weights_are_those_that_go(scope, connectivity):
    """A network with redundant channels computes the same without them."""
    model = residual()
    for name in ("stem", "branch"):
        kernel = ops.convert_to_numpy(model.get_layer(name).kernel).copy()
        kernel[..., [0, 3, 4, 6]] = 0.0
        model.get_layer(name).kernel.assign(kernel)
        norm = model.get_layer(f"{name}_norm")
        for weight in (norm.beta, norm.moving_mean):
            value = ops.convert_to_numpy(weight).copy()
            value[[0, 3, 4, 6]] = 0.0
            weight.assign(value)
    small = baselines.prune(
        model,
        baselines.weight_magnitude,
        0.5,
        scope=scope,
        connectivity=connectivity,
    )
    assert small.get_layer("stem").filters == 4
    x = pruning.inputs_for(model)
    assert pruning.difference(small, model, x) < 1e-5


@core
@pytest.mark.parametrize(
    ("make", "metric", "scope"),
    [
        (wide_resnet, "volume", "layer"),
        (wide_resnet, "flops", "global"),
        (wide_resnet, "params", "layer"),
        (pruning.squeezed, "volume", "global"),
        (pruning.squeezed, "flops", "layer"),
        (pruning.squeezed, "params", "global"),
    ],
)
def test_budgets_are_met(make, metric, scope):
    model = make()
    full = getattr(keras_bar.measure_cost(model), metric)
    # A fraction, or units of the metric.
    budget, limit = (0.5, full / 2) if scope == "layer" else [full // 4] * 2
    small = baselines.prune(
        model, baselines.random_scores(0), budget, metric, scope=scope
    )
    used = getattr(keras_bar.measure_cost(small), metric)
    assert 0.85 * limit <= used <= limit
    assert not keras_bar.explain(small).mixed


def test_layers_lose_the_same_share():
    """Half of the volume three times: the uniformly narrowed network, whose
    FLOPs fall by the square (supplement, section 6)."""
    model = keras_bar.models.WideResNet(10, 1, (8, 8, 3))
    full = keras_bar.measure_cost(model)
    small = model
    for factor in (2, 4, 8):
        small = baselines.prune(small, baselines.weight_magnitude, 0.5)
        narrow = keras_bar.models.WideResNet(10, 1, (8, 8, 3), narrow=factor)
        cost = keras_bar.measure_cost(small)
        assert cost.volume == full.volume // factor
        assert cost.flops == keras_bar.measure_cost(narrow).flops


@core
def test_random_is_seeded():
    model = residual()

    def stem(seed):
        small = baselines.prune(model, baselines.random_scores(seed), 0.5)
        return ops.convert_to_numpy(small.get_layer("stem").kernel)

    np.testing.assert_array_equal(stem(1), stem(1))
    assert not np.array_equal(stem(1), stem(2))


@core
def test_the_model_is_left_as_it_was():
    model = residual()
    before = [ops.convert_to_numpy(x).copy() for x in model.weights]
    baselines.prune(model, baselines.weight_magnitude, 0.5)
    for x, y in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(x), y)


def test_pruned_again_and_again():
    model = pruning.squeezed()
    full = keras_bar.measure_cost(model).flops
    for factor in (2, 4, 8):
        model = baselines.prune(model, baselines.random_scores(0), 0.5, "flops")
        assert keras_bar.measure_cost(model).flops <= full / factor


@core
@pytest.mark.parametrize(
    ("criterion", "scope"),
    [
        (baselines.weight_magnitude, "layer"),
        (baselines.random_scores(0), "global"),
        (baselines.VectorQuantization(), "global"),
        (baselines.InterpolativeDecomposition(IMAGES), "global"),
        (baselines.InterpolativeDecomposition(), "layer"),
    ],
    ids=["wm", "random", "vq", "id", "id-weights"],
)
def test_what_is_left_is_a_plain_model_within_budget(
    criterion, scope, tmp_path
):
    model = keras_bar.models.WideResNet(10, 0.5, (8, 8, 3))
    pruning.randomize(model)
    small = baselines.prune(model, criterion, 0.4, scope=scope)
    full = keras_bar.measure_cost(model).volume
    assert 0.3 * full <= keras_bar.measure_cost(small).volume <= 0.4 * full
    kinds = {type(x) for x in small.layers}
    assert all(x.__module__.startswith("keras.") for x in kinds)
    path = tmp_path / "small.keras"
    small.save(path)
    loaded = keras.models.load_model(path)
    assert pruning.difference(loaded, small, IMAGES) < 1e-4


def test_a_model_with_gates_is_refused():
    gated = keras_bar.gate(residual())
    with pytest.raises(ValueError, match=r"Expected one without.* Received"):
        baselines.prune(gated, baselines.random_scores(0), 0.5)


def test_skip():
    small = baselines.prune(
        every_kernel(), baselines.weight_magnitude, 0.7, skip="plain"
    )
    assert small.get_layer("plain").filters == 6


@pytest.mark.parametrize(
    "arguments, options, match",
    [
        ((baselines.random_scores(0), 0), {}, "Invalid budget"),
        ((baselines.random_scores(0), 1e9), {}, "exceeds the full"),
        ((baselines.random_scores(0), 1e-4), {}, "too small"),
        ((baselines.random_scores(0), 0.5, "size"), {}, "Unknown metric"),
        ((baselines.random_scores(0), 0.5), {"scope": "all"}, "Unknown scope"),
        (
            (baselines.random_scores(0), 0.5),
            {"connectivity": "x"},
            "connectivity",
        ),
        ((lambda c: np.ones(3), 0.5), {}, r"Expected a number per channel"),
        ((lambda c: np.full(8, np.nan), 0.5), {}, "NaN"),
        ((lambda c: None, 0.5), {}, "Expected a number per channel"),
        (
            (lambda c: baselines.random_scores, 0.5),
            {},
            "Received: <function random",
        ),
        ((lambda c: [[1.0], [1.0, 2.0]], 0.5), {}, r"Received: \[\[1.0\]"),
        (("wm", 0.5), {}, "Received: criterion='wm'"),
        (
            (baselines.random_scores, 0.5),
            {},
            r"baselines.random_scores\(seed\)",
        ),
        ((baselines.VectorQuantization, 0.5), {}, "Invalid criterion"),
        ((baselines.InterpolativeDecomposition, 0.5), {}, "Invalid criterion"),
    ],
)
def test_errors_have_three_beats(network, arguments, options, match):
    with pytest.raises(ValueError, match=match) as error:
        baselines.prune(network, *arguments, **options)
    assert "Expected" in str(error.value)
    assert "Received" in str(error.value)


@pytest.mark.parametrize("seed", [-1, 0.5, "a", None, True])
def test_wrong_seeds(seed):
    with pytest.raises(ValueError, match="Expected an integer.*Received: seed"):
        baselines.random_scores(seed)


@pytest.mark.parametrize(
    ("factor", "steps"),
    [
        (1, [1.0]),
        (1.25, [1 / 1.25]),
        (2, [1 / 2]),
        (3, [1 / 3]),
        (4, [1 / 2] * 2),
        (6, [1 / 2.44949] * 2),
        (16, [1 / 2] * 4),
        (49, [1 / 2.177906] * 5),
    ],
)
def test_halvings(factor, steps):
    found = baselines.halvings(1 / factor)
    assert found == steps
    assert np.prod(found) == pytest.approx(1 / factor, rel=2e-6)


@pytest.mark.parametrize("budget", [0, -0.5, 2, np.nan, "1/2", None, True])
def test_what_cannot_be_halved(budget):
    with pytest.raises(
        ValueError, match=r"Expected a fraction.* Received: budget="
    ):
        baselines.halvings(budget)


def test_rounds_lead_to_the_budget():
    model = keras_bar.models.WideResNet(10, 0.5, (8, 8, 3))
    full = keras_bar.measure_cost(model).volume
    for step in baselines.halvings(1 / 6):
        model = baselines.prune(model, baselines.random_scores(0), step)
    found = keras_bar.measure_cost(model).volume
    assert 0.9 * full / 6 <= found <= full / 6


@core
@pytest.mark.parametrize("way", ["split", "slices", "reshape"])
def test_filters_of_heads_that_one_layer_makes(way):
    """Queries, keys and values of 2 heads of 3 features, fused in a layer."""
    inputs = keras.Input((5, 4))
    fused = layers.Dense(18, name="qkv")(inputs)
    if way == "reshape":
        parts = ops.unstack(ops.reshape(fused, (-1, 5, 3, 2, 3)), axis=2)
    else:
        parts = ops.split(fused, 3, axis=-1)
        if way == "slices":
            parts = [fused[..., i : i + 6] for i in (0, 6, 12)]
        parts = [ops.reshape(x, (-1, 5, 2, 3)) for x in parts]
    q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in parts)
    weights = ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))))
    x = ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3))
    x = layers.Dense(4)(ops.reshape(x, (-1, 5, 6)))
    x = layers.GlobalAveragePooling1D()(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    kernel = model.get_layer("qkv").kernel
    # Input i gives 18 i + j to feature j.
    kernel.assign(np.arange(4 * 18).reshape(4, 18))
    (heads,) = (
        x
        for x in seen_by(baselines.weight_magnitude, model).values()
        if x.size == 2
    )
    for head in range(2):
        features = [
            part * 6 + 3 * head + i for part in range(3) for i in range(3)
        ]
        expected = [18 * i + j for i in range(4) for j in features]
        found = np.concatenate([x[:, head] for x in heads.filters])
        np.testing.assert_array_equal(np.sort(found), np.sort(expected))
