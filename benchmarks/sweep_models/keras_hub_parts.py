"""Components and sizes of the tiny KerasHub models."""

VOCABULARY = 40


def models():
    """Returns `keras_hub.models`."""
    import keras_hub

    return keras_hub.models


def hub_layers():
    """Returns `keras_hub.layers`."""
    import keras_hub

    return keras_hub.layers


def made(name, **arguments):
    """Returns a function that creates a backbone."""
    return lambda: getattr(models(), name)(**arguments)


SIZES = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
TEXT = {"vocabulary_size": VOCABULARY, **SIZES}
GROUPED = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
SHORT = {"max_sequence_length": 8}
IMAGE = {"image_shape": (32, 32, 3)}
SHORT_TEXT = {**TEXT, **SHORT}
VISION = {"patch_size": 16, **IMAGE, **SIZES}
GEMMA = {**GROUPED, "head_dim": 8}


def resnet(**arguments):
    """Returns a tiny ResNet."""
    return models().ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=arguments.pop("filters", [64, 64, 64, 64]),
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=arguments.pop("image_shape", (64, 64, 3)),
        **arguments,
    )


def hgnet(**arguments):
    """Returns a tiny HGNet."""
    return models().HGNetV2Backbone(
        depths=[1, 1, 1, 1],
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=False,
        stackwise_stage_filters=[
            [8, 8, 8, 1, 1, 3],
            [8, 8, 16, 1, 1, 3],
            [16, 8, 16, 1, 1, 3],
            [16, 8, 32, 1, 1, 3],
        ],
        apply_downsample=[False, True, True, True],
        use_lightweight_conv_block=[False, False, False, False],
        image_shape=(64, 64, 3),
        **arguments,
    )


def mit():
    """Returns a tiny MiT."""
    return models().MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        **IMAGE,
    )


def segformer():
    """Returns a tiny SegFormer."""
    return models().SegFormerBackbone(image_encoder=mit(), projection_filters=8)


def deeplab():
    """Returns a tiny DeepLabV3."""
    return models().DeepLabV3Backbone(
        image_encoder=resnet(image_shape=(64, 64, 3)),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[6, 12],
        upsampling_size=4,
        image_shape=(64, 64, 3),
    )


def retinanet():
    """Returns a tiny RetinaNet."""
    return models().RetinaNetBackbone(
        image_encoder=resnet(image_shape=(64, 64, 3)),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=(64, 64, 3),
    )


def basnet():
    """Returns a tiny BASNet."""
    return models().BASNetBackbone(
        image_encoder=resnet(
            image_shape=(None, None, 3), filters=[64, 128, 256, 512]
        ),
        num_classes=1,
        image_shape=(64, 64, 3),
    )


def clip(kind="CLIP"):
    """Returns a tiny CLIP."""
    hub = models()
    text = getattr(hub, f"{kind}TextEncoder")(embedding_dim=16, **TEXT, **SHORT)
    vision = getattr(hub, f"{kind}VisionEncoder")(**VISION)
    return getattr(hub, f"{kind}Backbone")(vision, text, projection_dim=8)


def siglip():
    """Returns a tiny SigLIP."""
    hub = models()
    text = hub.SigLIPTextEncoder(embedding_dim=16, **TEXT, **SHORT)
    vision = hub.SigLIPVisionEncoder(**VISION)
    return hub.SigLIPBackbone(vision, text)


def vit(**arguments):
    """Returns a tiny ViT."""
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}
    sizes = {**sizes, "patch_size": 16, **IMAGE, **arguments}
    return models().ViTBackbone(**sizes)


def dino():
    """Returns a tiny DINO."""
    return models().DINOV2Backbone(
        position_embedding_shape=(32, 32, 3), **VISION
    )


def depth():
    """Returns a tiny Depth Anything."""
    encoder = models().DINOV2Backbone(
        patch_size=8,
        num_layers=4,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=24,
        image_shape=(64, 64, 3),
        position_embedding_shape=(64, 64, 3),
        apply_layernorm=True,
    )
    return models().DepthAnythingBackbone(
        image_encoder=encoder,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 8, 8, 8],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )


def efficientnet():
    """Returns a tiny EfficientNet."""
    return models().EfficientNetBackbone(
        stackwise_width_coefficients=[0.5, 0.5],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 5],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[16, 16],
        stackwise_output_filters=[16, 24],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        input_shape=(32, 32, 3),
        num_features=32,
    )


def mobilenet():
    """Returns a tiny MobileNet."""
    return models().MobileNetBackbone(
        stackwise_expansion=[[40, 56], [64, 144]],
        stackwise_num_blocks=[2, 2],
        stackwise_num_filters=[[16, 16], [24, 24]],
        stackwise_kernel_size=[[3, 3], [5, 5]],
        stackwise_num_strides=[[2, 1], [2, 1]],
        stackwise_se_ratio=[[None, None], [0.25, 0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"] * 2],
        stackwise_padding=[[1, 1], [2, 2]],
        output_num_filters=64,
        input_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=2,
        depthwise_residual=False,
        squeeze_and_excite=0.5,
        last_layer_filter=64,
        input_activation="hard_swish",
        output_activation="hard_swish",
        **IMAGE,
    )


def cspnet():
    """Returns a tiny CSPNet."""
    return models().CSPNetBackbone(
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[1, 2, 2],
        stackwise_num_filters=[32, 64, 64],
        block_type="dark_block",
        stage_type="dark",
        **IMAGE,
    )


def sam():
    """Returns a tiny SAM."""
    hub = models()
    encoder = hub.ViTDetBackbone(
        hidden_size=16,
        num_layers=2,
        intermediate_dim=24,
        num_heads=2,
        global_attention_layer_indices=[1],
        patch_size=16,
        num_output_channels=8,
        window_size=2,
        image_shape=(64, 64, 3),
    )
    prompt = hub_layers().SAMPromptEncoder(
        hidden_size=8,
        image_embedding_size=(4, 4),
        input_image_size=(64, 64),
        mask_in_channels=4,
    )
    decoder = hub_layers().SAMMaskDecoder(
        num_layers=2,
        hidden_size=8,
        intermediate_dim=16,
        num_heads=2,
        embedding_dim=8,
        num_multimask_outputs=3,
        iou_head_depth=2,
        iou_head_hidden_dim=8,
    )
    return hub.SAMBackbone(encoder, prompt, decoder)


def parseq():
    """Returns a tiny PARSeq."""
    return models().PARSeqBackbone(
        image_encoder=vit(use_class_token=False),
        vocabulary_size=VOCABULARY,
        max_label_length=8,
        decoder_hidden_dim=16,
        num_decoder_layers=1,
        num_decoder_heads=2,
        decoder_mlp_dim=24,
    )


def blip2():
    """Returns a tiny BLIP-2."""
    hub = models()
    vision = hub.BLIP2VisionEncoder(
        image_size=32,
        patch_size=16,
        use_patch_bias=True,
        use_class_token=True,
        use_mha_bias=True,
        use_mlp_bias=True,
        dropout_rate=0.0,
        layer_norm_epsilon=1e-6,
        initializer_range=0.02,
        **SIZES,
    )
    former = hub.BLIP2QFormer(
        num_query_tokens=4,
        vision_dim=16,
        cross_attention_frequency=2,
        dropout=0.0,
        layer_norm_epsilon=1e-6,
        **SIZES,
    )
    language = hub.BLIP2CustomOPT(
        num_query_tokens=4,
        qformer_hidden_dim=16,
        dropout=0.0,
        max_sequence_length=16,
        **TEXT,
    )
    return hub.BLIP2Backbone(vision, former, language)


def t5gemma(name, **arguments):
    """Returns a tiny T5Gemma."""
    sides = {}
    for side in ("encoder", "decoder"):
        sides |= {
            f"{side}_hidden_dim": 16,
            f"{side}_intermediate_dim": 24,
            f"{side}_num_layers": 2,
            f"{side}_num_attention_heads": 4,
            f"{side}_num_key_value_heads": 2,
            f"{side}_head_dim": 8,
            f"{side}_layer_types": ["sliding_attention", "full_attention"],
        }
    return getattr(models(), name)(
        vocabulary_size=VOCABULARY,
        sliding_window=8,
        cross_attention_hidden_size=16,
        **sides,
        **arguments,
    )


def flux():
    """Returns a tiny Flux."""
    return models().FluxBackbone(
        input_channels=8,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        depth_single_blocks=1,
        axes_dim=[4, 6, 6],
        theta=10_000,
        use_bias=True,
        guidance_embed=True,
        image_shape=(16, 8),
        text_shape=(8, 8),
        image_ids_shape=(16, 3),
        text_ids_shape=(8, 3),
        y_shape=(8,),
    )


def dfine():
    """Returns a tiny D-FINE."""
    encoder = hgnet(out_features=["stage3", "stage4"])
    return models().DFineBackbone(
        backbone=encoder,
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_labels=4,
        num_denoising=0,
        learn_initial_query=False,
        num_queries=10,
        anchor_image_size=(64, 64),
        feat_strides=[16, 32],
        num_feature_levels=2,
        hidden_dim=16,
        encoder_in_channels=[16, 32],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=24,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.34,
        eval_idx=-1,
        num_decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        image_shape=(64, 64, 3),
        out_features=["stage3", "stage4"],
    )
