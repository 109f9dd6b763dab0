"""Einstein sums in which channels stay whole."""

import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import CHANNELS
from tests.helpers.one_layer import filters_of
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import gates_of


def pooled(x):
    """Positions weighted by a mask."""
    mask = layers.Conv2D(2, 1, activation="sigmoid", name="mask")(x)
    return ops.einsum("bhwc,bhwk->bkc", x, mask)


def product(x):
    y = layers.Conv2D(CHANNELS, 1, name="second")(x)
    return ops.einsum("bhwc,bhwc->bhc", x, y)


def turned(x):
    return ops.transpose(ops.einsum("bhwc->bchw", x), (0, 2, 3, 1))


def elided(x):
    """Channels under an ellipsis, and axes under one."""
    mask = layers.Conv2D(CHANNELS, 1, activation="sigmoid", name="mask")(x)
    x = ops.einsum("bh...,bh...->b...h", x, mask)
    return ops.einsum("...ch->...hc", x)


EQUATIONS = {
    "pooled": pooled,
    "product": product,
    "turned": turned,
    "elided": elided,
}


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize("name", EQUATIONS)
def test_channels_stay_whole(name, zero, tmp_path):
    gated, hard, small = prune(
        model_with(EQUATIONS[name], zero),
        connectivities=BOTH,
        path=tmp_path / "small.keras",
    )
    alive = int(gated.get_layer("first_gate").alive().sum())
    assert filters_of(small) == alive < CHANNELS
    assert "first" in keras_bar.explain(small).gated


def test_multiply_adds_are_counted():
    cost = keras_bar.measure_cost(model_with(pooled, True))
    (row,) = [x for x in cost.layers if x.kind == "Einsum"]
    assert row.flops == 2 * 6 * 6 * 2 * CHANNELS
    assert not cost.uncounted


@pytest.mark.parametrize(
    ("equation", "why"),
    [("bhwc,bhwc->bhw", "sums over"), ("bhwc,bhvc->bhwv", "in two ways")],
)
def test_a_sum_over_channels_is_a_boundary(equation, why):
    def layer(x):
        return layers.Reshape((6, -1, 1))(ops.einsum(equation, x, x))

    model = model_with(layer, True)
    assert why in keras_bar.explain(model).ungated["first"]
    prune(model)


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize("bias", (None, "d"))
@pytest.mark.parametrize(
    ("equation", "front"),
    [
        ("abxc,cd->abxd", (6, 6)),
        ("...c,cd->...d", ()),
        ("...xc,cd->...xd", (6,)),
        ("...abxc,cd->...abxd", (6, 6)),
    ],
)
def test_einsum_as_a_dense_layer(equation, front, zero, bias, tmp_path):
    def layer(x):
        return layers.EinsumDense(
            equation,
            (*front, 5),
            bias_axes=bias,
            activation="relu",
            name="dense",
        )(x)

    model = model_with(layer, zero)
    gated, hard, small = prune(model, path=tmp_path / "small.keras")
    assert keras_bar.explain(gated).gated == ["first", "dense", "last"]
    alive = int(gates_of(gated)[1].alive().sum())
    assert small.get_layer("dense").partial_output_shape == (*front, alive)
    assert filters_of(small) == gates_of(gated)[0].alive().sum()


def test_einsum_that_is_no_dense_layer():
    def layer(x):
        return layers.EinsumDense("abxc,bcd->abxd", (6, 6, 2))(x)

    why = keras_bar.explain(model_with(layer, True)).ungated["first"]
    assert "no rule knows the equation" in why
