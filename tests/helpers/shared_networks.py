"""Networks that call layers with weights more than once."""

import keras
from keras import layers
from keras import ops


def called(x, *made):
    for layer in made:
        x = layer(x)
    return x


def detector(norm="shared", levels=3, bias=True):
    """A tower and a head that all levels of a pyramid share."""
    x = inputs = keras.Input((16, 16, 3))
    pyramid = []
    for i in range(levels):
        x = layers.Conv2D(6, 3, 2, padding="same", name=f"level{i}")(x)
        pyramid.append(layers.ReLU()(x))
    tower = [
        layers.Conv2D(8, 3, padding="same", use_bias=bias, name=f"tower{i}")
        for i in range(2)
    ]
    shared = [layers.BatchNormalization(name=f"norm{i}") for i in range(2)]
    head = layers.Conv2D(4, 1, name="head")

    def run(x):
        for conv, one in zip(tower, shared, strict=True):
            x = conv(x)
            if norm == "groups":
                x = layers.GroupNormalization(2)(x)
            elif norm:
                x = (one if norm == "shared" else layers.BatchNormalization())(
                    x
                )
            x = layers.Activation("silu")(x)
        return layers.Reshape((-1, 4))(head(x))

    outputs = layers.Concatenate(axis=1)([run(x) for x in pyramid])
    return keras.Model(inputs, outputs)


def siamese():
    """An encoder of two inputs, of convolutions and a dense layer."""
    x = keras.Input((8, 8, 3))
    encoder = keras.Model(
        x,
        called(
            x,
            layers.Conv2D(6, 3, padding="same", name="first"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.Conv2D(8, 3, 2, padding="same", name="second"),
            layers.PReLU(shared_axes=(1, 2)),
            layers.Flatten(),
            layers.Dense(8, activation="relu", name="dense"),
        ),
        name="encoder",
    )
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    distance = layers.Subtract()([encoder(a), encoder(b)])
    return keras.Model([a, b], layers.Dense(1)(ops.square(distance)))


def tied(residual, preactivated=False, calls=2):
    """A block that is called several times in a row."""
    x = inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    norm = layers.BatchNormalization(name="norm")
    block = [
        layers.ReLU(),
        layers.Conv2D(8, 3, padding="same", name="conv1"),
        layers.ReLU(),
        layers.Conv2D(6, 3, padding="same", name="conv2"),
    ]
    block.insert(0 if preactivated else 2, norm)
    for _ in range(calls):
        y = called(x, *block)
        x = layers.Add()([x, y]) if residual else y
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def perceptrons():
    """Dense layers on tokens, and attention, twice in a row."""
    x = inputs = keras.Input((5, 6))
    attention = layers.MultiHeadAttention(3, 2, name="attention")
    norm = layers.LayerNormalization()
    rms = layers.RMSNormalization()
    wide = layers.Dense(8, activation="gelu", name="wide")
    narrow = layers.Dense(6, name="narrow")
    for _ in range(2):
        y = norm(x)
        x = layers.Add()([x, attention(y, y)])
        x = layers.Add()([x, narrow(wide(rms(x)))])
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(3)(x))


def one_norm():
    """A normalization that follows two convolutions."""
    x = inputs = keras.Input((8, 8, 3))
    norm = layers.BatchNormalization(name="norm")
    a = norm(layers.Conv2D(6, 3, padding="same", name="a")(x))
    b = norm(layers.Conv2D(6, 1, name="b")(x))
    x = layers.Concatenate()([layers.ReLU()(a), layers.ReLU()(b)])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


def grouped():
    """Convolutions in groups, transposed and separable ones, on two sizes."""
    x = inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(8, 3, padding="same", name="stem")
    made = [
        stem,
        layers.ReLU(),
        layers.Conv2D(8, 3, groups=4, padding="same", name="grouped"),
        layers.SeparableConv2D(6, 3, padding="same", name="separable"),
        layers.LeakyReLU(),
        layers.Conv2DTranspose(6, 2, 2, name="transposed"),
        layers.GroupNormalization(2, name="groups"),
        layers.ReLU(),
        layers.Conv2D(5, 1, name="last"),
        layers.GlobalAveragePooling2D(),
    ]
    x = [called(y, *made) for y in (x, layers.AveragePooling2D(2)(x))]
    return keras.Model(inputs, layers.Dense(3)(layers.Add()(x)))


def mobile():
    """An encoder whose depthwise convolution leaves constants, of images of two
    sizes."""
    x = inputs = keras.Input((8, 8, 3))
    made = [
        layers.Conv2D(6, 3, padding="same", name="stem"),
        layers.Conv2D(12, 1, use_bias=False, name="expand"),
        layers.BatchNormalization(name="norm1"),
        layers.Activation("relu6"),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.BatchNormalization(name="norm2"),
        layers.Activation("relu6"),
        layers.Conv2D(6, 1, use_bias=False, name="project"),
        layers.BatchNormalization(name="norm3"),
        layers.Conv2D(5, 3, name="last"),
        layers.GlobalAveragePooling2D(),
    ]
    x = [called(y, *made) for y in (x, layers.AveragePooling2D(2)(x))]
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()(x)))


NETWORKS = {
    "plain detector": lambda: detector(None),
    "detector": lambda: detector("shared", 2),
    "detector without bias": lambda: detector("shared", bias=False),
    "detector with a norm per level": lambda: detector("own", bias=False),
    "detector with groups": lambda: detector("groups", 2),
    "siamese": siamese,
    "tied": lambda: tied(residual=False),
    "tied residual": lambda: tied(residual=True),
    "tied, preactivated": lambda: tied(True, preactivated=True, calls=3),
    "perceptrons": perceptrons,
    "one norm": one_norm,
    "grouped": grouped,
    "mobile": mobile,
}
