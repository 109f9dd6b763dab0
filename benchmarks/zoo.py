"""Image models of other packages, kimm and keras-hub, with random weights.

The models of keras-hub have the settings of their documentation's examples, or
those of a small preset, because presets would be downloaded.
"""

import keras

SHAPE = (64, 64, 3)


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
        *(f"keras_hub/{x}" for x in KERAS_HUB),
    ]


def build(name):
    """A classifier of ten classes on 64x64 images."""
    package, _, name = name.partition("/")
    if package == "kimm":
        import kimm

        return getattr(kimm.models, name)(
            weights=None,
            input_tensor=keras.Input(SHAPE),
            classes=10,
            classifier_activation=None,
        )
    import keras_hub

    settings = KERAS_HUB[name]()
    backbone = getattr(keras_hub.models, f"{name}Backbone")(**settings)
    inputs = keras.Input(settings.get("image_shape") or SHAPE)
    features = backbone(inputs)
    if isinstance(features, dict):  # A pyramid.
        features = list(features.values())
    pooled = [
        keras.layers.GlobalAveragePooling2D()(x)
        if len(x.shape) == 4
        else keras.layers.GlobalAveragePooling1D()(x)
        if len(x.shape) == 3
        else x
        for x in keras.tree.flatten(features)
    ]
    if len(pooled) > 1:
        pooled = [keras.layers.Concatenate()(pooled)]
    return keras.Model(inputs, keras.layers.Dense(10)(pooled[0]))


def _csp_net():
    return {
        "stem_filters": 32,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stackwise_depth": [1, 2, 4],
        "stackwise_strides": [1, 2, 2],
        "stackwise_num_filters": [32, 64, 128],
        "block_type": "dark_block",
        "stage_type": "dark",
    }


def _efficient_net():
    return {
        "stackwise_kernel_sizes": [3, 3, 3, 3, 3, 3],
        "stackwise_num_repeats": [2, 4, 4, 6, 9, 15],
        "stackwise_input_filters": [24, 24, 48, 64, 128, 160],
        "stackwise_output_filters": [24, 48, 64, 128, 160, 256],
        "stackwise_expansion_ratios": [1, 4, 4, 4, 6, 6],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0, 0.25, 0.25, 0.25],
        "stackwise_strides": [1, 2, 2, 2, 1, 2],
        "stackwise_block_types": ["fused"] * 3 + ["unfused"] * 3,
        "width_coefficient": 1.0,
        "depth_coefficient": 1.0,
    }


def _res_net(**more):
    return {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 64, 64],
        "stackwise_num_blocks": [2, 2, 2],
        "stackwise_num_strides": [1, 2, 2],
        "block_type": "basic_block",
        **more,
    }


def _hg_net_v2():
    return {
        "depths": [1, 2, 4],
        "embedding_size": 32,
        "hidden_sizes": [64, 128, 256],
        "stem_channels": [3, 16, 32],
        "hidden_act": "relu",
        "use_learnable_affine_block": False,
        "stackwise_stage_filters": [
            (32, 16, 64, 1, 1, 3),
            (64, 32, 128, 2, 1, 3),
            (128, 64, 256, 4, 1, 3),
        ],
        "apply_downsample": [False, True, True],
        "use_lightweight_conv_block": [False, False, False],
        "image_shape": SHAPE,
    }


def _mit():
    """MiT-B0."""
    return {
        "image_shape": SHAPE,
        "num_layers": 4,
        "hidden_dims": [32, 64, 160, 256],
        "layerwise_depths": [2, 2, 2, 2],
        "layerwise_num_heads": [1, 2, 5, 8],
        "layerwise_sr_ratios": [8, 4, 2, 1],
        "layerwise_patch_sizes": [7, 3, 3, 3],
        "layerwise_strides": [4, 2, 2, 2],
        "max_drop_path_rate": 0.1,
    }


def _seg_former():
    import keras_hub

    encoder = keras_hub.models.MiTBackbone(**_mit())
    return {"image_encoder": encoder, "projection_filters": 256}


def _retina_net():
    import keras_hub

    encoder = keras_hub.models.ResNetBackbone(
        **{
            **_res_net(image_shape=SHAPE),
            "stackwise_num_filters": [64, 128, 256, 512],
            "stackwise_num_blocks": [2, 2, 2, 2],
            "stackwise_num_strides": [1, 2, 2, 2],
        }
    )
    return {
        "image_encoder": encoder,
        "min_level": 3,
        "max_level": 5,
        "use_p5": False,
        "image_shape": SHAPE,
    }


def _swin():
    """The example's, with windows that fit the image."""
    return {
        "image_shape": SHAPE,
        "embed_dim": 96,
        "depths": (2, 2, 2, 2),
        "num_heads": (3, 6, 12, 24),
        "window_size": 2,
    }


def _vit():
    """ViT-Ti/16."""
    return {
        "image_shape": SHAPE,
        "patch_size": 16,
        "num_layers": 12,
        "num_heads": 3,
        "hidden_dim": 192,
        "mlp_dim": 768,
    }


def _dino_v2():
    return {
        "patch_size": 14,
        "num_layers": 4,
        "hidden_dim": 192,
        "num_heads": 3,
        "intermediate_dim": 768,
        "image_shape": (56, 56, 3),
        "position_embedding_shape": (56, 56),
    }


# From the name of a backbone to a function that gives its settings.
KERAS_HUB = {
    "CSPNet": _csp_net,
    "DINOV2": _dino_v2,
    "DenseNet": lambda: {"stackwise_num_repeats": [6, 12, 24, 16]},
    "EfficientNet": _efficient_net,
    "HGNetV2": _hg_net_v2,
    "MiT": _mit,
    "ResNet": _res_net,
    "RetinaNet": _retina_net,
    "SegFormer": _seg_former,
    "SwinTransformer": _swin,
    "VGG": lambda: {
        "stackwise_num_repeats": [2, 2, 3, 3, 3],
        "stackwise_num_filters": [64, 128, 256, 512, 512],
        "image_shape": SHAPE,
    },
    "ViT": _vit,
    "Xception": lambda: {
        "stackwise_conv_filters": [[32, 64], [64, 128], [256, 256]],
        "stackwise_pooling": [True, True, False],
        "image_shape": SHAPE,
    },
}
