"""Operations with several outputs, and those that put tensors together."""

import keras
import pytest
from keras import layers
from keras import ops

import keras_bar
from tests.helpers.one_layer import assert_removable
from tests.helpers.one_layer import behind
from tests.helpers.one_layer import model_with
from tests.helpers.one_layer import prune
from tests.helpers.pruning import BOTH
from tests.helpers.pruning import assert_invariants
from tests.helpers.pruning import close_gates
from tests.helpers.pruning import gates_of
from tests.helpers.pruning import randomize


def gated_linear(x):
    """One half of the channels scales the other."""
    a, b = ops.split(x, 2, axis=-1)
    return a * ops.sigmoid(b)


def cross_stage(x):
    """A part goes on as it is, another through a convolution, and a third is
    read by nobody."""
    a, b, c = ops.split(x, [2, 5], axis=-1)
    b = layers.Conv2D(3, 3, padding="same", name="inner")(b)
    return layers.Concatenate()([b, a])


def ends(x):
    """The first row, and the last one."""
    first, middle, last = ops.split(x, [1, 5], axis=1)
    return layers.Subtract()([last, first])


def rows(x):
    first, *middle, last = ops.unstack(x, axis=1)
    return layers.Conv1D(4, 1, name="inner")(first + last)


def empty_part(x):
    """The part in the middle has no channels."""
    a, b, c = ops.split(x, [2, 2], axis=-1)
    return layers.Concatenate()([c, b, a])


SPLITS = {
    "empty_part": empty_part,
    "gated_linear": gated_linear,
    "cross_stage": cross_stage,
    "ends": ends,
    "rows": rows,
}


@pytest.mark.parametrize("zero", (False, True))
@pytest.mark.parametrize("name", SPLITS)
def test_splits(name, zero, tmp_path):
    model = model_with(SPLITS[name], zero)
    gated, hard, small = prune(
        model,
        connectivities=BOTH,
        path=tmp_path / "small.keras" if zero else None,
    )
    assert keras_bar.explain(small).gated[0] == "first"
    assert not keras_bar.explain(small).boundaries
    alive = int(gated.get_layer("first_gate").alive().sum())
    assert small.get_layer("first").filters <= alive


def test_channels_cannot_be_unstacked():
    def layer(x):
        a, *_, b = ops.unstack(x, axis=-1)
        return ops.stack([a, b], axis=-1)

    why = keras_bar.explain(model_with(layer, True)).ungated["first"]
    assert "it separates the channels" in why


@pytest.mark.parametrize("axis", [1, 2])
def test_outputs_of_the_model_keep_their_channels(axis):
    """Also those that are cut out of a tensor."""
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(6, 1, name="first")(inputs)
    outputs = ops.split(layers.Conv2D(6, 1, name="head")(x), 2, axis=-1)
    outputs = [*outputs, *ops.split(x, 2, axis=axis)]
    ungated = keras_bar.explain(keras.Model(inputs, outputs)).ungated
    assert ungated["head"] == "its channels are the model's output"
    assert ungated["first"] == "its channels are the model's output"


def beside(x, join):
    """Two convolutions of the same input, with gates of their own; one of them
    with constants where it is dead."""
    a = layers.Conv2D(6, 1, name="a")(x)
    b = layers.Conv2D(6, 3, padding="same", name="b")(x)
    return join([a, layers.BatchNormalization()(layers.ReLU()(b))])


JOINS = {
    "concatenate": layers.Concatenate(axis=1),
    "ops_concatenate": lambda x: ops.concatenate(x, axis=-2),
    "stack": lambda x: ops.stack(x, axis=1),
    "stack_in_between": lambda x: ops.stack([*x, x[0]], axis=-2),
}


@pytest.mark.parametrize("dead", [(), ("a_gate",), ("b_gate",)])
@pytest.mark.parametrize("name", JOINS)
def test_joins(name, dead):
    inputs = keras.Input((6, 6, 3))
    x = beside(inputs, JOINS[name])
    if len(x.shape) == 5:
        x = layers.Conv3D(4, 1, name="inner")(x)
        x = layers.Reshape((-1, 6, 4))(x)
    gated = keras_bar.gate(randomize(keras.Model(inputs, behind(x))))
    close_gates(gated, dead=dead)
    assert {x.name for x in gates_of(gated)} >= {"a_gate", "b_gate"}
    hard, small = assert_invariants(gated, ("mixed",) if dead else BOTH)
    assert not keras_bar.explain(small).adjustments
    kept = {x.name for x in small.layers} & {"a", "b"}
    assert len(kept) == 2 - len(dead)


@pytest.mark.parametrize("mode", ["symmetric", "constant"])
def test_padding_with_other_values(mode):
    """The padding repeats values of the same channel, or is a number."""
    options = {"constant_values": 1.5} if mode == "constant" else {}

    def layer(x):
        widths = [[0, 0], [1, 0], [2, 1], [0, 0]]
        return ops.pad(x, widths, mode=mode, **options)

    if mode == "symmetric":
        assert_removable(layer, zero=False)
        return
    gated, hard, small = prune(model_with(layer, zero=True))
    alive = gates_of(gated)[0].alive().sum()
    assert small.get_layer("first").filters == alive
    explanation = keras_bar.explain(small)
    assert explanation.gated[0] == "first"
    (why,) = explanation.boundaries.values()
    assert why == "it pads with values other than zeros"
