"""The tasks of KerasHub: backbone and further arguments by name."""

_CLASSES = {"num_classes": 3}
TASKS = {
    **{
        f"{name}TextClassifier": (f"{name}Backbone", _CLASSES)
        for name in (
            "Albert",
            "Bert",
            "DebertaV3",
            "DistilBert",
            "FNet",
            "Roberta",
            "RoformerV2",
            "XLMRoberta",
        )
    },
    **{
        f"{name}MaskedLM": (f"{name}Backbone", {})
        for name in (
            "Albert",
            "Bert",
            "DebertaV3",
            "DistilBert",
            "FNet",
            "Roberta",
            "RoformerV2",
            "XLMRoberta",
        )
    },
    **{
        f"{name}CausalLM": (f"{name}Backbone", {})
        for name in (
            "BLIP2",
            "Bloom",
            "Falcon",
            "Gemma",
            "Gemma3",
            "Gemma4",
            "GPT2",
            "GPTNeoX",
            "GptOss",
            "Llama",
            "Llama3",
            "Mistral",
            "Mixtral",
            "OPT",
            "PARSeq",
            "PaliGemma",
            "Phi3",
            "Qwen",
            "Qwen3",
            "Qwen3Moe",
            "Qwen3_5",
            "Qwen3_5Moe",
            "QwenMoe",
            "RWKV7",
            "SmolLM3",
        )
    },
    **{
        f"{name}Seq2SeqLM": (f"{name}Backbone", {})
        for name in ("Bart", "EdRec", "T5", "T5Gemma", "T5Gemma2")
    },
    **{
        f"{name}ImageClassifier": (f"{name}Backbone", _CLASSES)
        for name in (
            "CSPNet",
            "DeiT",
            "DenseNet",
            "EfficientNet",
            "HGNetV2",
            "MiT",
            "MobileNet",
            "ResNet",
            "SwinTransformer",
            "ViT",
            "Xception",
        )
    },
    "VGGImageClassifier": (
        "VGGBackbone",
        {"num_classes": 3, "pooling_hidden_dim": 16},
    ),
    "ESMMaskedPLM": ("ESMBackbone", {}),
    "ESMProteinClassifier": ("ESMBackbone", _CLASSES),
    "BertTextEmbedder": ("BertBackbone", {}),
    "XLMRobertaTextEmbedder": ("XLMRobertaBackbone", {}),
    "Qwen3TextEmbedder": ("Qwen3Backbone", {}),
    "BASNetImageSegmenter": ("BASNetBackbone", {}),
    "DeepLabV3ImageSegmenter": ("DeepLabV3Backbone", {"num_classes": 2}),
    "SegFormerImageSegmenter": ("SegFormerBackbone", {"num_classes": 2}),
    "SAMImageSegmenter": ("SAMBackbone", {}),
    "DepthAnythingDepthEstimator": (
        "DepthAnythingBackbone",
        {"depth_estimation_type": "relative"},
    ),
    "RetinaNetObjectDetector": ("RetinaNetBackbone", {"num_classes": 3}),
    "DFineObjectDetector": ("DFineBackbone", {"num_classes": 4}),
    "MoonshineAudioToText": ("MoonshineBackbone", {}),
}
