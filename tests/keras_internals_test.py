"""Names of Keras that are not public are where they are expected to be."""

import keras
import pytest

from keras_bar import keras_internals
from tests.helpers import tiny


def moved(name):
    return (
        f"Keras {keras.__version__} has moved `{name}`, which "
        "`keras_bar.keras_internals` uses; 3.15 had it."
    )


@pytest.mark.core
def test_names_that_are_used_exist():
    optimizer = keras.optimizers.AdamW(use_ema=True)
    model = tiny.student(optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    for name in [
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_cache",
        "_model_variables_moving_average",
        "_trainable_variables",
        "_untrack_variable",
        "_var_key",
        "gradient_accumulation_steps",
    ]:
        if name.startswith("_exclude"):
            optimizer._built = False
            optimizer.exclude_from_weight_decay([])
        assert hasattr(optimizer, name), moved(name)
    averages = optimizer._model_variables_moving_average
    assert len(averages) == len(optimizer._trainable_variables)
    assert any(x is None for x in averages), moved("the missing averages")
    known = len(optimizer.variables)
    keras_internals.average_overwritten_variables(optimizer, [])
    assert not any(x is None for x in averages)
    assert len(optimizer.variables) == known  # As many as a saved one has.


@pytest.mark.core
def test_names_that_look_inside_layers_exist():
    model = tiny.network()
    for name in (
        "_build_shapes_dict",
        "_flatten_layers",
        "_inbound_nodes",
        "_outbound_nodes",
        "_nodes_by_depth",
    ):
        assert hasattr(model, name), moved(name)
    first = keras_internals.nodes_in_order(model)[0]
    assert first.operation is model.layers[1]
    assert keras_internals.build_shapes(model.layers[1]), moved("the shapes")
    with keras_internals.undisturbed(model):
        keras.layers.ReLU()
    fresh = keras.layers.Softmax(), keras.layers.Softmax()
    with keras_internals.undisturbed(model):
        assert keras.layers.Softmax().name == "softmax"
    names = [x.name for x in (*fresh, keras.layers.Softmax())]
    ends = [int(x.removeprefix("softmax").strip("_") or 0) for x in names]
    assert ends == [ends[0], ends[0] + 1, ends[0] + 2]


@pytest.mark.core
def test_names_of_the_distiller_that_are_used_exist():
    student = tiny.student()
    feature = keras.distillation.FeatureDistillation("mse", "stem", "stem")
    distiller = keras.distillation.Distiller(tiny.network(), student, feature)
    for name in [
        "_aggregate_additional_loss",
        "_compile_loss",
        "_extract_all_teacher_features",
        "_student_feature_extractor",
        "_teacher_feature_extractor",
    ]:
        assert hasattr(distiller, name), moved(name)
    x, _ = tiny.data(2)
    found = keras_internals.teacher_features(distiller, x)
    assert {*found} == {"final_output", "stem"}, moved("the features")


@pytest.mark.core
def test_names_of_graphs_that_are_used_exist():
    model = tiny.network()
    for name in ["_inputs_struct", "_nodes_by_depth", "_outputs_struct"]:
        assert hasattr(model, name), moved(name)
    sequential = keras.Sequential([keras.Input((2,)), keras.layers.ReLU()])
    assert keras_internals.graph_of(sequential) is not None, moved(
        "_functional"
    )
    norm = model.get_layer("branch_norm")
    for name in ["_flatten_layers", "_inbound_nodes"]:
        assert hasattr(norm, name), moved(name)
    assert hasattr(norm.output, "_keras_history"), moved("_keras_history")
    assert keras_internals.maker_of(norm.output) is norm
    (read,) = keras_internals.read_by_maker(norm.output)
    assert read is norm.input
    args, _ = keras_internals.first_arguments(norm)
    assert args[0] is norm.input
    scale = keras.layers.Normalization(mean=[1.0, 2.0], variance=[1.0, 1.0])
    scale.build((None, 3, 2))
    assert hasattr(scale, "_keep_axis"), moved("_keep_axis")
