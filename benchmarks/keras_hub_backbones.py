"""Image backbones of keras-hub, small and with random weights.

They have the settings of their documentation's examples, or those of a small
preset, because presets would be downloaded.
"""

SHAPE = (64, 64, 3)


def backbone(kind, **settings):
    """A backbone or vision encoder by the name of its class."""
    import keras_hub

    return getattr(keras_hub.models, kind)(**settings)


def res_net(image_shape=SHAPE, **settings):
    """ResNet-18, if not told otherwise."""
    settings = {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64, 128, 256, 512],
        "stackwise_num_blocks": [2, 2, 2, 2],
        "stackwise_num_strides": [1, 2, 2, 2],
        "block_type": "basic_block",
        **settings,
    }
    return backbone("ResNetBackbone", image_shape=image_shape, **settings)


def res_net_example(**settings):
    """The example's ResNet, of three stages of equal width."""
    return res_net(
        stackwise_num_filters=[64, 64, 64],
        stackwise_num_blocks=[2, 2, 2],
        stackwise_num_strides=[1, 2, 2],
        **settings,
    )


def res_net_vd():
    return res_net_example(
        input_conv_filters=[32, 32, 64],
        input_conv_kernel_sizes=[3, 3, 3],
        block_type="bottleneck_block_vd",
    )


def csp_net(**settings):
    settings = {"block_type": "dark_block", "stage_type": "dark", **settings}
    return backbone(
        "CSPNetBackbone",
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 4],
        stackwise_strides=[1, 2, 2],
        stackwise_num_filters=[32, 64, 128],
        image_shape=SHAPE,
        **settings,
    )


def csp_res_net():
    return csp_net(
        block_type="bottleneck_block",
        stage_type="csp",
        bottle_ratio=[0.5],
        expand_ratio=[2.0],
    )


def dense_net():
    """DenseNet-121."""
    return backbone(
        "DenseNetBackbone",
        stackwise_num_repeats=[6, 12, 24, 16],
        image_shape=SHAPE,
    )


def efficient_net():
    return backbone(
        "EfficientNetBackbone",
        stackwise_kernel_sizes=[3, 3, 3, 3, 3, 3],
        stackwise_num_repeats=[2, 4, 4, 6, 9, 15],
        stackwise_input_filters=[24, 24, 48, 64, 128, 160],
        stackwise_output_filters=[24, 48, 64, 128, 160, 256],
        stackwise_expansion_ratios=[1, 4, 4, 4, 6, 6],
        stackwise_squeeze_and_excite_ratios=[0.0, 0.0, 0, 0.25, 0.25, 0.25],
        stackwise_strides=[1, 2, 2, 2, 1, 2],
        stackwise_block_types=["fused"] * 3 + ["unfused"] * 3,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        image_shape=SHAPE,
    )


def hg_net_v2(**settings):
    settings = {
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
        **settings,
    }
    return backbone("HGNetV2Backbone", image_shape=SHAPE, **settings)


def mobile_net():
    """MobileNetV3, the example's."""
    activations = ["relu", "hard_swish", "hard_swish", "hard_swish"]
    blocks = [2, 3, 2, 3]
    return backbone(
        "MobileNetBackbone",
        stackwise_expansion=[
            [40, 56],
            [64, 144, 144],
            [72, 72],
            [144, 288, 288],
        ],
        stackwise_num_blocks=blocks,
        stackwise_num_filters=[
            [16, 16],
            [24, 24, 24],
            [24, 24],
            [48, 48, 48],
        ],
        stackwise_kernel_size=[[3, 3], [5, 5, 5], [5, 5], [5, 5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1, 1], [1, 1], [2, 1, 1]],
        stackwise_se_ratio=[
            [None, None],
            [0.25, 0.25, 0.25],
            [0.3, 0.3],
            [0.3, 0.25, 0.25],
        ],
        stackwise_activation=[
            [x] * n for x, n in zip(activations, blocks, strict=True)
        ],
        stackwise_padding=[[1, 1], [2, 2, 2], [2, 2], [2, 2, 2]],
        output_num_filters=288,
        input_activation="hard_swish",
        output_activation="hard_swish",
        input_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=288,
        squeeze_and_excite=0.5,
        image_shape=SHAPE,
    )


def mobile_net_v5():
    """Each kind of block, and the adapter of several scales."""

    def stackwise(**of_kinds):
        return [[of_kinds[x] for x in stage] for stage in kinds]

    kinds = [["er"], ["uir", "uir"], ["uir", "mqa", "uir"]]
    return backbone(
        "MobileNetV5Backbone",
        stackwise_block_types=kinds,
        stackwise_num_blocks=[1, 2, 3],
        stackwise_num_filters=[[24], [48, 48], [96, 96, 96]],
        stackwise_strides=[[2], [2, 1], [2, 1, 1]],
        stackwise_act_layers=stackwise(er="gelu", uir="gelu", mqa="gelu"),
        stackwise_exp_ratios=stackwise(er=4.0, uir=6.0, mqa=0.0),
        stackwise_se_ratios=stackwise(er=0.0, uir=0.0, mqa=0.0),
        stackwise_dw_kernel_sizes=stackwise(er=0, uir=5, mqa=0),
        stackwise_dw_start_kernel_sizes=stackwise(er=0, uir=3, mqa=0),
        stackwise_dw_end_kernel_sizes=stackwise(er=0, uir=0, mqa=0),
        stackwise_exp_kernel_sizes=stackwise(er=3, uir=0, mqa=0),
        stackwise_pw_kernel_sizes=stackwise(er=1, uir=0, mqa=0),
        stackwise_num_heads=stackwise(er=0, uir=0, mqa=4),
        stackwise_key_dims=stackwise(er=0, uir=0, mqa=32),
        stackwise_value_dims=stackwise(er=0, uir=0, mqa=32),
        stackwise_kv_strides=stackwise(er=0, uir=0, mqa=2),
        stackwise_use_cpe=stackwise(er=False, uir=False, mqa=False),
        num_features=256,
        msfa_output_resolution=4,
        layer_scale_init_value=1e-5,
        image_shape=SHAPE,
    )


def xception():
    return backbone(
        "XceptionBackbone",
        stackwise_conv_filters=[[32, 64], [64, 128], [256, 256]],
        stackwise_pooling=[True, True, False],
        image_shape=SHAPE,
    )


def vgg():
    """VGG-16."""
    return backbone(
        "VGGBackbone",
        stackwise_num_repeats=[2, 2, 3, 3, 3],
        stackwise_num_filters=[64, 128, 256, 512, 512],
        image_shape=SHAPE,
    )


def bas_net():
    return backbone(
        "BASNetBackbone",
        image_encoder=res_net(image_shape=(None, None, 3)),
        num_classes=1,
        image_shape=SHAPE,
    )


def deep_lab_v3():
    """With dilations that fit the image."""
    return backbone(
        "DeepLabV3Backbone",
        image_encoder=res_net(block_type="bottleneck_block"),
        projection_filters=48,
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        upsampling_size=4,
        dilation_rates=[1, 2, 4],
        image_shape=SHAPE,
    )


def retina_net():
    return backbone(
        "RetinaNetBackbone",
        image_encoder=res_net(),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=SHAPE,
    )


def d_fine():
    """Up to its encoder of features. The configuration of its decoder does not
    describe all of it, and its boxes are computed in the backend alone."""
    import keras

    names = ["stage3", "stage4"]
    encoder = hg_net_v2(
        stem_channels=[3, 16, 16],
        stackwise_stage_filters=[
            [16, 16, 64, 1, 3, 3],
            [64, 32, 256, 1, 3, 3],
            [256, 64, 512, 2, 3, 5],
            [512, 128, 1024, 1, 3, 5],
        ],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, True, True],
        depths=[1, 1, 2, 1],
        hidden_sizes=[64, 256, 512, 1024],
        embedding_size=16,
        use_learnable_affine_block=True,
        out_features=names,
    )
    whole = backbone(
        "DFineBackbone",
        backbone=encoder,
        decoder_in_channels=[128, 128],
        encoder_hidden_dim=128,
        num_denoising=0,
        num_labels=80,
        hidden_dim=128,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=SHAPE[:2],
        feat_strides=[16, 32],
        num_feature_levels=2,
        encoder_in_channels=[512, 1024],
        encode_proj_layers=[1],
        num_attention_heads=8,
        encoder_ffn_dim=512,
        num_encoder_layers=1,
        hidden_expansion=0.34,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=3,
        decoder_attention_heads=8,
        decoder_ffn_dim=512,
        decoder_n_points=[6, 6],
        lqe_hidden_dim=64,
        num_lqe_layers=2,
        out_features=names,
        image_shape=SHAPE,
        seed=0,
    )
    outputs = whole.get_layer("hybrid_encoder").output
    return keras.Model(whole.inputs, outputs)


BACKBONES = {
    "BASNet": bas_net,
    "CSPNet": csp_net,
    "CSPResNet": csp_res_net,
    "DFine": d_fine,
    "DeepLabV3": deep_lab_v3,
    "DenseNet": dense_net,
    "EfficientNet": efficient_net,
    "HGNetV2": hg_net_v2,
    "MobileNet": mobile_net,
    "MobileNetV5": mobile_net_v5,
    "ResNet": res_net_example,
    "ResNetV2": lambda: res_net_example(use_pre_activation=True),
    "ResNetVd": res_net_vd,
    "RetinaNet": retina_net,
    "VGG": vgg,
    "Xception": xception,
}
