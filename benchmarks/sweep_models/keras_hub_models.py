"""Tiny configurations of the models of KerasHub."""

VOCABULARY = 40


def _hub():
    import keras_hub

    return keras_hub.models


def _hub_layers():
    import keras_hub

    return keras_hub.layers


def _made(name, **arguments):
    """Returns a function that makes a backbone."""
    return lambda: getattr(_hub(), name)(**arguments)


_SIZES = {
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
_TEXT = {"vocabulary_size": VOCABULARY, **_SIZES}
_GROUPED = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
_SHORT = {"max_sequence_length": 8}
_IMAGE = {"image_shape": (32, 32, 3)}
_VISION = {"patch_size": 16, **_IMAGE, **_SIZES}
_GEMMA = {**_GROUPED, "head_dim": 8}


def _resnet(**arguments):
    return _hub().ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=arguments.pop("filters", [64, 64, 64, 64]),
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=arguments.pop("image_shape", (64, 64, 3)),
        **arguments,
    )


def _hgnet(**arguments):
    return _hub().HGNetV2Backbone(
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


def _mit():
    return _hub().MiTBackbone(
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[8, 16],
        **_IMAGE,
    )


def _segformer():
    return _hub().SegFormerBackbone(image_encoder=_mit(), projection_filters=8)


def _deeplab():
    return _hub().DeepLabV3Backbone(
        image_encoder=_resnet(image_shape=(64, 64, 3)),
        low_level_feature_key="P2",
        spatial_pyramid_pooling_key="P4",
        dilation_rates=[6, 12],
        upsampling_size=4,
        image_shape=(64, 64, 3),
    )


def _retinanet():
    return _hub().RetinaNetBackbone(
        image_encoder=_resnet(image_shape=(64, 64, 3)),
        min_level=3,
        max_level=5,
        use_p5=False,
        image_shape=(64, 64, 3),
    )


def _basnet():
    return _hub().BASNetBackbone(
        image_encoder=_resnet(
            image_shape=(None, None, 3), filters=[64, 128, 256, 512]
        ),
        num_classes=1,
        image_shape=(64, 64, 3),
        projection_filters=8,
    )


def _clip(kind="CLIP"):
    hub = _hub()
    text = getattr(hub, f"{kind}TextEncoder")(
        embedding_dim=16, **_TEXT, **_SHORT
    )
    vision = getattr(hub, f"{kind}VisionEncoder")(**_VISION)
    return getattr(hub, f"{kind}Backbone")(vision, text, projection_dim=8)


def _siglip():
    hub = _hub()
    text = hub.SigLIPTextEncoder(embedding_dim=16, **_TEXT, **_SHORT)
    vision = hub.SigLIPVisionEncoder(**_VISION)
    return hub.SigLIPBackbone(vision, text)


def _vit(**arguments):
    sizes = {"num_layers": 2, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 24}
    sizes = {**sizes, "patch_size": 16, **_IMAGE, **arguments}
    return _hub().ViTBackbone(**sizes)


def _dino():
    return _hub().DINOV2Backbone(
        position_embedding_shape=(32, 32, 3), **_VISION
    )


def _depth():
    encoder = _hub().DINOV2Backbone(
        patch_size=8,
        num_layers=4,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=24,
        image_shape=(64, 64, 3),
        position_embedding_shape=(64, 64, 3),
        apply_layernorm=True,
    )
    return _hub().DepthAnythingBackbone(
        image_encoder=encoder,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_dims=[8, 8, 8, 8],
        fusion_hidden_dim=8,
        head_hidden_dim=8,
        head_in_index=-1,
        feature_keys=["stage1", "stage2", "stage3", "stage4"],
    )


def _efficientnet():
    return _hub().EfficientNetBackbone(
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


def _mobilenet():
    return _hub().MobileNetBackbone(
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
        **_IMAGE,
    )


def _cspnet():
    return _hub().CSPNetBackbone(
        stem_filters=32,
        stem_kernel_size=3,
        stem_strides=1,
        stackwise_depth=[1, 2, 2],
        stackwise_strides=[1, 2, 2],
        stackwise_num_filters=[32, 64, 64],
        block_type="dark_block",
        stage_type="dark",
        **_IMAGE,
    )


def _sam():
    hub = _hub()
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
    prompt = _hub_layers().SAMPromptEncoder(
        hidden_size=8,
        image_embedding_size=(4, 4),
        input_image_size=(64, 64),
        mask_in_channels=4,
    )
    decoder = _hub_layers().SAMMaskDecoder(
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


def _parseq():
    return _hub().PARSeqBackbone(
        image_encoder=_vit(use_class_token=False),
        vocabulary_size=VOCABULARY,
        max_label_length=8,
        decoder_hidden_dim=16,
        num_decoder_layers=1,
        num_decoder_heads=2,
        decoder_mlp_dim=24,
    )


def _blip2():
    hub = _hub()
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
        **_SIZES,
    )
    former = hub.BLIP2QFormer(
        num_query_tokens=4,
        vision_dim=16,
        cross_attention_frequency=2,
        dropout=0.0,
        layer_norm_epsilon=1e-6,
        **_SIZES,
    )
    language = hub.BLIP2CustomOPT(
        num_query_tokens=4,
        qformer_hidden_dim=16,
        dropout=0.0,
        max_sequence_length=16,
        **_TEXT,
    )
    return hub.BLIP2Backbone(vision, former, language)


def _t5gemma(name, **arguments):
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
    return getattr(_hub(), name)(
        vocabulary_size=VOCABULARY,
        sliding_window=8,
        cross_attention_hidden_size=16,
        **sides,
        **arguments,
    )


def _flux():
    return _hub().FluxBackbone(
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


def _dfine():
    encoder = _hgnet(out_features=["stage3", "stage4"])
    return _hub().DFineBackbone(
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


_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_EXPERTS = {"num_experts": 4, "top_k": 2}
_MOE = {**_GROUPED, "num_experts": 4, "top_k": 2}

BACKBONES = {
    "AlbertBackbone": _made(
        "AlbertBackbone", embedding_dim=8, **_TEXT, **_SHORT
    ),
    "BartBackbone": _made("BartBackbone", **_TEXT, **_SHORT),
    "BASNetBackbone": _basnet,
    "BertBackbone": _made("BertBackbone", **_TEXT, **_SHORT),
    "BLIP2Backbone": _blip2,
    "BloomBackbone": _made("BloomBackbone", **_TEXT),
    "CLIPBackbone": _clip,
    "CLIPTextEncoder": _made(
        "CLIPTextEncoder", embedding_dim=16, **_TEXT, **_SHORT
    ),
    "CLIPVisionEncoder": _made("CLIPVisionEncoder", **_VISION),
    "CSPNetBackbone": _cspnet,
    "DFineBackbone": _dfine,
    "DINOV2Backbone": _dino,
    "DINOV3Backbone": _made("DINOV3Backbone", **_VISION),
    "DebertaV3Backbone": _made(
        "DebertaV3Backbone", bucket_size=4, **_TEXT, **_SHORT
    ),
    "DeepLabV3Backbone": _deeplab,
    "DeiTBackbone": _made(
        "DeiTBackbone", **{**_VISION, "image_shape": (32, 32, 3)}
    ),
    "DenseNetBackbone": _made(
        "DenseNetBackbone",
        stackwise_num_repeats=[2, 2],
        growth_rate=8,
        **_IMAGE,
    ),
    "DepthAnythingBackbone": _depth,
    "DistilBertBackbone": _made("DistilBertBackbone", **_TEXT, **_SHORT),
    "EdRecBackbone": _made(
        "EdRecBackbone",
        vocab_size=VOCABULARY,
        num_layers_enc=1,
        num_layers_dec=1,
        hidden_dim=16,
        intermediate_dim=24,
        num_heads=2,
    ),
    "EfficientNetBackbone": _efficientnet,
    "ElectraBackbone": _made(
        "ElectraBackbone",
        vocab_size=VOCABULARY,
        embedding_dim=8,
        **_SIZES,
        **_SHORT,
    ),
    "ESMBackbone": _made("ESMBackbone", **_TEXT, **_SHORT),
    "FNetBackbone": _made(
        "FNetBackbone",
        vocabulary_size=VOCABULARY,
        num_layers=2,
        hidden_dim=16,
        intermediate_dim=24,
        **_SHORT,
    ),
    "FalconBackbone": _made(
        "FalconBackbone",
        vocabulary_size=VOCABULARY,
        num_layers=2,
        num_attention_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    ),
    "FluxBackbone": _flux,
    "GemmaBackbone": _made("GemmaBackbone", **_GEMMA),
    "Gemma3Backbone": _made("Gemma3Backbone", image_size=16, **_GEMMA),
    "Gemma4Backbone": _made("Gemma4Backbone", image_size=16, **_GEMMA),
    "GPT2Backbone": _made("GPT2Backbone", **_TEXT, **_SHORT),
    "GPTNeoXBackbone": _made("GPTNeoXBackbone", **_TEXT, **_SHORT),
    "GptOssBackbone": _made("GptOssBackbone", **_MOE),
    "HGNetV2Backbone": _hgnet,
    "LlamaBackbone": _made("LlamaBackbone", **_GROUPED),
    "Llama3Backbone": _made("Llama3Backbone", **_GROUPED),
    "MetaCLIP2Backbone": lambda: _clip("MetaCLIP2"),
    "MiTBackbone": _mit,
    "MistralBackbone": _made("MistralBackbone", **_GROUPED),
    "MixtralBackbone": _made("MixtralBackbone", **_MOE),
    "MobileNetBackbone": _mobilenet,
    "MoonshineBackbone": _made(
        "MoonshineBackbone",
        vocabulary_size=VOCABULARY,
        filter_dim=16,
        encoder_num_layers=1,
        decoder_num_layers=1,
        hidden_dim=16,
        intermediate_dim=24,
        encoder_num_heads=2,
        decoder_num_heads=2,
    ),
    "OPTBackbone": _made("OPTBackbone", **_TEXT, **_SHORT),
    "PARSeqBackbone": _parseq,
    "PaliGemmaBackbone": _made(
        "PaliGemmaBackbone",
        image_size=32,
        vit_patch_size=16,
        vit_num_heads=2,
        vit_hidden_dim=16,
        vit_num_layers=1,
        **_GEMMA,
    ),
    "Phi3Backbone": _made("Phi3Backbone", **_GROUPED),
    "QwenBackbone": _made("QwenBackbone", **_GROUPED),
    "Qwen3Backbone": _made("Qwen3Backbone", **_GEMMA),
    "Qwen3MoeBackbone": _made(
        "Qwen3MoeBackbone", moe_intermediate_dim=16, **_MOE
    ),
    "Qwen3_5Backbone": _made("Qwen3_5Backbone", **_GEMMA, **_LINEAR),
    "Qwen3_5MoeBackbone": _made(
        "Qwen3_5MoeBackbone",
        moe_intermediate_dim=16,
        shared_expert_intermediate_size=16,
        **{k: v for k, v in _GEMMA.items() if k != "intermediate_dim"},
        **_EXPERTS,
        **_LINEAR,
    ),
    "QwenMoeBackbone": _made(
        "QwenMoeBackbone",
        moe_intermediate_dim=16,
        shared_expert_intermediate_dim=16,
        **_MOE,
    ),
    "ResNetBackbone": _resnet,
    "RetinaNetBackbone": _retinanet,
    "RobertaBackbone": _made("RobertaBackbone", **_TEXT, **_SHORT),
    "RoformerV2Backbone": _made("RoformerV2Backbone", head_size=8, **_TEXT),
    "RWKV7Backbone": _made(
        "RWKV7Backbone",
        hidden_size=16,
        head_size=8,
        num_layers=2,
        vocabulary_size=VOCABULARY,
        intermediate_dim=24,
        gate_lora=8,
        mv_lora=8,
        aaa_lora=8,
        decay_lora=8,
    ),
    "SAMBackbone": _sam,
    "SegFormerBackbone": _segformer,
    "SigLIPBackbone": _siglip,
    "SmolLM3Backbone": _made(
        "SmolLM3Backbone",
        vocabulary_size=VOCABULARY,
        hidden_dim=16,
        intermediate_dim=24,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=False,
        attention_dropout=0.0,
        rope_layer_enabled_list=[True, True],
        layer_types=["full_attention", "full_attention"],
        mlp_bias=False,
        layer_norm_epsilon=1e-5,
        max_position_embeddings=16,
        rope_theta=10000.0,
        partial_rotary_factor=1.0,
    ),
    "SwinTransformerBackbone": _made(
        "SwinTransformerBackbone",
        embed_dim=8,
        depths=(2, 2),
        num_heads=(2, 2),
        window_size=4,
        **_IMAGE,
    ),
    "T5Backbone": _made("T5Backbone", **_TEXT),
    "T5GemmaBackbone": lambda: _t5gemma("T5GemmaBackbone"),
    "T5Gemma2Backbone": lambda: _t5gemma("T5Gemma2Backbone"),
    "VGGBackbone": _made(
        "VGGBackbone",
        stackwise_num_repeats=[1, 1],
        stackwise_num_filters=[8, 16],
        **_IMAGE,
    ),
    "VideoPrismBackbone": _made(
        "VideoPrismBackbone",
        num_frames=2,
        patch_size=16,
        hidden_dim=16,
        intermediate_dim=24,
        num_heads=2,
        num_spatial_layers=1,
        num_temporal_layers=1,
        num_auxiliary_layers=0,
        **_IMAGE,
    ),
    "ViTBackbone": _vit,
    "ViTDetBackbone": _made(
        "ViTDetBackbone",
        hidden_size=16,
        num_layers=2,
        intermediate_dim=24,
        num_heads=2,
        global_attention_layer_indices=[1],
        num_output_channels=8,
        window_size=2,
        image_shape=(64, 64, 3),
    ),
    "WhisperBackbone": _made(
        "WhisperBackbone",
        num_mels=8,
        max_encoder_sequence_length=16,
        max_decoder_sequence_length=8,
        **_TEXT,
    ),
    "XceptionBackbone": _made(
        "XceptionBackbone",
        stackwise_conv_filters=[[8, 8], [16, 16]],
        stackwise_pooling=[True, False],
        **_IMAGE,
    ),
    "XLMRobertaBackbone": _made("XLMRobertaBackbone", **_TEXT, **_SHORT),
    "XLNetBackbone": _made("XLNetBackbone", **_TEXT),
}
