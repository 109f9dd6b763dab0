"""Models of other packages, kimm and keras-hub, with random weights."""

import keras

from benchmarks.keras_hub_backbones import BACKBONES
from benchmarks.keras_hub_backbones import SHAPE
from benchmarks.keras_hub_texts import STEPS as STEPS
from benchmarks.keras_hub_texts import TEXTS
from benchmarks.keras_hub_texts import WORDS as WORDS
from benchmarks.keras_hub_transformers import TRANSFORMERS

KERAS_HUB = {**BACKBONES, **TRANSFORMERS}

# Models of kimm, without their numbers, that need larger images.
LARGER = {"VGG": (224, 224, 3), "InceptionV": (128, 128, 3)}


def names():
    """The models, as `package/Name`."""
    import kimm

    found = [
        name
        for name in dir(kimm.models)
        if isinstance(getattr(kimm.models, name), type) and name != "BaseModel"
    ]
    return [
        *(f"kimm/{x}" for x in found),
        *(f"keras_hub/{x}" for x in sorted({**KERAS_HUB, **TEXTS})),
    ]


def build(name):
    """A classifier of ten classes, on small images or short sentences."""
    package, _, name = name.partition("/")
    if package == "kimm":
        import kimm

        shape = LARGER.get(name.rstrip("0123456789"), SHAPE)
        return getattr(kimm.models, name)(
            weights=None,
            input_tensor=keras.Input(shape),
            classes=10,
            classifier_activation=None,
        )
    if name in TEXTS:
        return _reader(TEXTS[name]())
    return _classifier(KERAS_HUB[name]())


def _classifier(backbone):
    """A backbone, the means of its features and a dense layer."""
    shape = backbone.inputs[0].shape[1:]
    inputs = keras.Input(SHAPE if None in shape else shape)
    features = keras.tree.flatten(backbone(inputs))
    pooled = [
        keras.ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
        for x in features
    ]
    if len(pooled) > 1:
        pooled = [keras.layers.Concatenate()(pooled)]
    return keras.Model(inputs, keras.layers.Dense(10)(pooled[0]))


def _reader(backbone):
    """A backbone and a dense layer behind the features of the last word that
    it returns."""
    inputs = {
        name: keras.Input((STEPS,), dtype="int32", name=name)
        for name in backbone.input
    }
    features = backbone(inputs)
    if isinstance(features, dict):
        names = ("sequence_output", "decoder_sequence_output")
        features = next(features[x] for x in names if x in features)
    return keras.Model(inputs, keras.layers.Dense(10)(features[:, -1]))
