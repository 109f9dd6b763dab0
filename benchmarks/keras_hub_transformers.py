"""Vision transformers of keras-hub, small and with random weights."""

from benchmarks.keras_hub_backbones import SHAPE
from benchmarks.keras_hub_backbones import backbone

# A small one; the documentation's examples are smaller still.
SIZES = {"num_layers": 4, "num_heads": 3, "hidden_dim": 192}


def encoder(kind, **settings):
    """One that has the usual arguments."""
    settings = {
        "patch_size": 16,
        "intermediate_dim": 768,
        "image_shape": SHAPE,
        **SIZES,
        **settings,
    }
    return backbone(kind, **settings)


def mit():
    """MiT-B0."""
    return backbone(
        "MiTBackbone",
        image_shape=SHAPE,
        num_layers=4,
        hidden_dims=[32, 64, 160, 256],
        layerwise_depths=[2, 2, 2, 2],
        layerwise_num_heads=[1, 2, 5, 8],
        layerwise_sr_ratios=[8, 4, 2, 1],
        layerwise_patch_sizes=[7, 3, 3, 3],
        layerwise_strides=[4, 2, 2, 2],
        max_drop_path_rate=0.1,
    )


def seg_former():
    return backbone(
        "SegFormerBackbone", image_encoder=mit(), projection_filters=256
    )


def swin():
    """The example's, with windows that fit the image."""
    return backbone(
        "SwinTransformerBackbone",
        image_shape=SHAPE,
        embed_dim=96,
        depths=(2, 2, 2, 2),
        num_heads=(3, 6, 12, 24),
        window_size=2,
    )


def vit(**settings):
    """ViT-Ti/16."""
    settings = {
        "image_shape": SHAPE,
        "patch_size": 16,
        "num_layers": 12,
        "num_heads": 3,
        "hidden_dim": 192,
        "mlp_dim": 768,
        **settings,
    }
    return backbone("ViTBackbone", **settings)


def par_seq():
    """PARSeq-Ti's encoder of images."""
    return vit(
        image_shape=(32, 128, 3), patch_size=(4, 8), use_class_token=False
    )


def vit_det():
    """SAM's encoder of images, with global attention in every other layer."""
    return backbone(
        "ViTDetBackbone",
        image_shape=SHAPE,
        patch_size=8,
        hidden_size=96,
        num_layers=4,
        intermediate_dim=384,
        num_heads=3,
        global_attention_layer_indices=[1, 3],
        num_output_channels=64,
        window_size=2,
    )


def dino_v2(size=56):
    return encoder(
        "DINOV2Backbone",
        patch_size=14,
        image_shape=(size, size, 3),
        position_embedding_shape=(size, size),
    )


def depth_anything():
    return backbone(
        "DepthAnythingBackbone",
        image_encoder=dino_v2(112),
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[16, 32, 64, 128],
        fusion_hidden_dim=128,
        head_hidden_dim=16,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )


def blip2():
    """The encoder of images."""
    return backbone(
        "BLIP2VisionEncoder",
        image_size=SHAPE[0],
        patch_size=16,
        intermediate_dim=768,
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
        **SIZES,
    )


def video_prism():
    return backbone(
        "VideoPrismBackbone",
        num_frames=4,
        patch_size=16,
        hidden_dim=192,
        intermediate_dim=768,
        num_heads=3,
        num_spatial_layers=2,
        num_temporal_layers=2,
        num_auxiliary_layers=0,
        image_shape=SHAPE,
    )


TRANSFORMERS = {
    "BLIP2": blip2,
    "CLIP": lambda: encoder("CLIPVisionEncoder"),
    "DINOV2": dino_v2,
    "DINOV3": lambda: encoder("DINOV3Backbone"),
    "DeiT": lambda: encoder("DeiTBackbone"),
    "DepthAnything": depth_anything,
    "MetaCLIP2": lambda: encoder("MetaCLIP2VisionEncoder"),
    "MiT": mit,
    "PARSeq": par_seq,
    "SegFormer": seg_former,
    "SigLIP": lambda: encoder("SigLIPVisionEncoder"),
    "SwinTransformer": swin,
    "ViT": vit,
    "ViTDet": vit_det,
    "VideoPrism": video_prism,
}
