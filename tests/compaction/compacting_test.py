"""Gate, hard-prune, compact: the invariants on whole networks."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

import keras_bar
from keras_bar.analysis.channel_analysis import ChannelAnalysis
from keras_bar.layers import HardConcreteGate
from tests.helpers import pruning
from tests.helpers.block_networks import NETWORKS
from tests.helpers.block_networks import bottlenecks
from tests.helpers.block_networks import dense_blocks
from tests.helpers.block_networks import inverted_residuals
from tests.helpers.block_networks import long_stream
from tests.helpers.block_networks import two_in_two_out
from tests.helpers.block_networks import wide_resnet
from tests.helpers.pruning import conv_norm_relu

slow = pytest.mark.slow
# Networks of which few channels are left with every change.
THINNED = (dense_blocks, inverted_residuals, two_in_two_out)


@pytest.mark.parametrize(
    "network",
    # The nested network has its blocks.
    [pytest.param(x, marks=[slow] * (x is bottlenecks)) for x in NETWORKS],
)
def test_invariants(network, tmp_path):
    model = pruning.randomize(network())
    gated = keras_bar.gate(model)
    assert_every_convolution_is_gated_or_explained(model, gated)
    assert_open_gates_change_nothing(model, gated)
    pruning.close_gates(gated, share=0.5)
    path = tmp_path / "small.keras"
    pruning.assert_invariants(gated, pruning.BOTH, path=path)
    if network in THINNED:
        assert_invariants_of_few_channels(gated)


@slow
@pytest.mark.parametrize("network", [x for x in NETWORKS if x not in THINNED])
def test_invariants_of_few_channels(network):
    gated = keras_bar.gate(pruning.randomize(network()))
    assert_invariants_of_few_channels(gated)


def assert_invariants_of_few_channels(gated):
    pruning.assert_invariants(pruning.close_gates(gated, seed=1, share=0.8))


def assert_open_gates_change_nothing(model, gated):
    pruning.open_gates(gated)
    x = pruning.inputs_for(model)
    assert pruning.difference(gated, model, x) < 1e-5
    hard, small = pruning.assert_invariants(gated)
    assert not keras_bar.explain(small).mixed
    full = pruning.numbers(keras_bar.measure_cost(model))
    assert pruning.numbers(keras_bar.measure_cost(small)) == full


@pytest.mark.parametrize(
    "network", [pytest.param(wide_resnet, marks=slow), bottlenecks]
)
def test_regular_gates_leave_no_mixed_addition(network):
    model = pruning.randomize(network())
    gated = keras_bar.gate(model, connectivity="regular")
    if network is wide_resnet:
        assert_open_gates_change_nothing(model, gated)
    pruning.close_gates(gated)
    _, small = pruning.assert_invariants(gated, pruning.BOTH)
    assert not keras_bar.explain(small).mixed


def assert_every_convolution_is_gated_or_explained(model, gated):
    told = keras_bar.explain(gated)
    names = {*told.gated, *told.ungated}
    found = [x for x in model._flatten_layers() if "Conv" in type(x).__name__]
    assert all(any(n.endswith(x.name) for n in names) for x in found)
    assert len(names) == len(found)
    assert all(told.ungated.values()) and not {*told.gated} & {*told.ungated}


def test_a_block_without_alive_channels_disappears():
    model = pruning.randomize(wide_resnet())
    gated = keras_bar.gate(model)
    dead = {"group2_block1_conv2_gate"}
    pruning.close_gates(gated, dead=dead)
    _, small = pruning.assert_invariants(gated)
    removed = keras_bar.explain(small).removed
    assert {"group2_block1_conv1", "group2_block1_conv2"} <= {*removed}
    assert "group2_block1_shortcut" not in removed


def test_hard_pruning_changes_only_what_explain_names():
    gated = keras_bar.gate(pruning.randomize(wide_resnet()))
    pruning.close_gates(gated)
    hard = keras_bar.hard_prune(gated)
    told = keras_bar.explain(hard).adjustments
    assert told and all(x.layer.endswith("conv1") for x in told)
    assert all(x.moved > 0 and x.error > 0 for x in told)


def test_unknown_image_size():
    x = inputs = keras.Input((None, None, 3))
    x = conv_norm_relu(conv_norm_relu(x, 6), 8)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    gated = pruning.close_gates(keras_bar.gate(pruning.randomize(model)))
    pruning.assert_invariants(gated, measure=False)
    with pytest.raises(ValueError, match="known size.*Received"):
        keras_bar.measure_cost(gated)


def test_half_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = pruning.randomize(wide_resnet())
        gated = pruning.close_gates(keras_bar.gate(model))
    finally:
        keras.config.set_dtype_policy("float32")
    pruning.assert_invariants(gated, tolerance=0.05)
    gates = pruning.gates_of(gated)
    assert {x.log_alpha.dtype for x in gates} == {"float32"}


def test_the_model_is_left_as_it_was():
    model = pruning.randomize(bottlenecks())
    before = [x.numpy().copy() for x in model.weights]
    gated = pruning.close_gates(keras_bar.gate(model))
    state = [x.numpy().copy() for x in gated.weights]
    keras_bar.compact(gated)(pruning.inputs_for(model))
    for x, y in zip(model.weights + gated.weights, before + state, strict=True):
        np.testing.assert_array_equal(x.numpy(), y)


@slow
def test_a_compact_model_is_gated_and_compacted_again():
    gated = keras_bar.gate(pruning.randomize(wide_resnet()))
    small = keras_bar.compact(pruning.close_gates(gated, share=0.3))
    again = keras_bar.gate(small)
    assert len(pruning.gates_of(again)) == len(pruning.gates_of(gated))
    pruning.assert_invariants(pruning.close_gates(again, seed=5, share=0.3))


def test_a_frozen_teacher_gives_a_student_that_learns():
    model = bottlenecks()
    expected = [x.path for x in keras_bar.gate(model).trainable_variables]
    model.trainable = False
    student = keras_bar.gate(model)
    assert [x.path for x in student.trainable_variables] == expected
    assert not model.trainable_variables


@functools.cache
def pruned_stream(post):
    """A gated network of one stream, hard-pruned, and compact."""
    gated = keras_bar.gate(pruning.randomize(long_stream(post)))
    pruning.close_gates(gated, share=0.6)
    return gated, *pruning.assert_invariants(gated)


def kinds_of(model):
    return {type(x).__name__ for x in model.operations}


@pytest.mark.parametrize(
    "post", [True, pytest.param(False, marks=slow)], ids=["post", "pre"]
)
def test_a_mixed_model_from_a_file_is_pruned_again(post, tmp_path):
    """The invariants hold for what was compacted, saved, loaded and gated."""
    path = tmp_path / "small.keras"
    *_, small = pruned_stream(post)
    small.save(path)
    loaded = keras.models.load_model(path)
    again = keras_bar.gate(loaded, connectivity=pruning.BOTH[post])
    told = keras_bar.explain(again)
    assert not told.ungated and not told.boundaries
    pruning.close_gates(again, share=0.3)
    pruning.assert_invariants(again, [pruning.BOTH[not post]], path=path)


def test_writers_that_are_padded_hinder_no_shared_gate():
    """The stem keeps all channels, so that only the branch is padded."""
    gated = keras_bar.gate(pruning.randomize(long_stream(True, blocks=2)))
    pruning.close_gates(gated, share=0.6)
    stem = pruning.gates_of(gated)[0]
    pruning.set_gate(stem, np.full(stem.log_alpha.shape, 9.0))
    small = keras_bar.compact(gated)
    again = keras_bar.gate(small, connectivity="regular")
    assert not keras_bar.explain(again).ungated
    pruning.assert_invariants(pruning.close_gates(again), pruning.BOTH)


def test_mixed_additions_as_layers():
    gated, hard, _ = pruned_stream(post=True)
    small = keras_bar.compact(gated, mixed_addition="layer")
    assert "MixedResidual" in kinds_of(small)
    assert not {"Pad", "Take", "GetItem"} & kinds_of(small)
    x = pruning.inputs_for(gated)
    assert pruning.difference(small, hard, x) < 1e-4
    # Scattered channels are multiplied by a matrix, and no cost says so.
    mixed = {*keras_bar.measure_cost(small).uncounted.values()}
    assert mixed == {"MixedResidual"}
    again = pruning.close_gates(keras_bar.gate(small), share=0.3)
    _, smaller = pruning.assert_invariants(again)
    assert "MixedResidual" not in kinds_of(smaller)


def disconnected():
    gated = keras_bar.gate(bottlenecks())
    for gate in pruning.gates_of(gated):
        gate.set_alive(np.zeros(gate.log_alpha.shape[0], bool))
    return gated


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: keras_bar.compact(disconnected()), "is disconnected"),
        (lambda: keras_bar.compact(bottlenecks()), "nothing to prune"),
        (lambda: keras_bar.gate(Subclassed()), "no graph of layers"),
        (lambda: keras_bar.gate("model"), "Only a Keras model"),
        (
            lambda: keras_bar.gate(keras.Sequential([layers.Conv2D(3, 3)])),
            "no graph of layers yet",
        ),
        (lambda: keras_bar.gate(bottlenecks(), skip="x"), "Cannot skip"),
        (
            lambda: keras_bar.gate(bottlenecks(), connectivity="odd"),
            "Unknown connectivity",
        ),
        (
            lambda: keras_bar.compact(
                keras_bar.gate(bottlenecks()), connectivity="odd"
            ),
            "Unknown connectivity",
        ),
        (
            lambda: keras_bar.compact(
                keras_bar.gate(bottlenecks()), mixed_addition="odd"
            ),
            "Unknown mixed addition",
        ),
    ],
)
def test_errors(act, message):
    with pytest.raises(ValueError, match=f"(?s){message}.*Expected.*Received"):
        act()


def test_gates_in_odd_places():
    """Before normalization, behind the activation, two in a row."""
    x = inputs = keras.Input((10, 10, 3))
    x = HardConcreteGate(name="early")(layers.Conv2D(6, 3)(x))
    x = layers.Activation("sigmoid")(layers.BatchNormalization()(x))
    x = HardConcreteGate(name="late")(x)
    x = HardConcreteGate(name="later")(x)
    y = layers.DepthwiseConv2D(3, padding="same")(x)
    x = layers.Maximum()([x, HardConcreteGate(name="deep")(y)])
    x = layers.Conv2D(4, 3, padding="same")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    pruning.close_gates(pruning.randomize(model), share=0.4)
    pruning.assert_invariants(model)


@pytest.mark.parametrize("connectivity", pruning.BOTH)
def test_channels_are_analysed_once(connectivity, monkeypatch):
    gated = pruning.close_gates(keras_bar.gate(long_stream(post=True)))
    analyse, analysed = ChannelAnalysis.__init__, []

    def count(analysis, graph):
        analysed.append(graph.name)
        analyse(analysis, graph)

    monkeypatch.setattr(ChannelAnalysis, "__init__", count)
    keras_bar.compact(gated, connectivity=connectivity)
    assert analysed == [gated.name]
