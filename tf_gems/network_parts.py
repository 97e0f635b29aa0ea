"""The parts of Keras that a network from a file may be built of.

The list is complete. A part is named as Keras serializes it, by module and
class, and it is looked up in that module of Keras. Neither the registry of
`keras.saving.register_keras_serializable` nor custom objects are used, and a
name that they redefine is refused. Excluded are parts that run code or open
files (`Lambda`, `TFSMLayer`, `JaxLayer`), that hold words or their hashes
(`StringLookup`, `IntegerLookup`, `TextVectorization`, `Hashing`), and that call
functions (`ops.map`, `ops.scan`).
"""

import importlib

import keras

_LAYERS = """
    Activation ActivityRegularization AdaptiveAveragePooling1D
    AdaptiveAveragePooling2D AdaptiveAveragePooling3D AdaptiveMaxPooling1D
    AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add AdditiveAttention
    AlphaDropout Attention Average AveragePooling1D AveragePooling2D
    AveragePooling3D BatchNormalization Bidirectional CategoryEncoding
    CenterCrop Concatenate Conv1D Conv1DTranspose Conv2D Conv2DTranspose
    Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D Cropping1D
    Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D
    Discretization Dot Dropout ELU EinsumDense Embedding Flatten GRU GRUCell
    GaussianDropout GaussianNoise GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization
    GroupQueryAttention Identity InputLayer LSTM LSTMCell LayerNormalization
    LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D Maximum
    MelSpectrogram Minimum MultiHeadAttention Multiply Normalization PReLU
    Permute RMSNormalization RNN RandomBrightness RandomContrast RandomCrop
    RandomFlip RandomRotation RandomTranslation RandomZoom ReLU RepeatVector
    Rescaling Reshape Resizing ReversibleEmbedding STFTSpectrogram
    SeparableConv1D SeparableConv2D SimpleRNN SimpleRNNCell Softmax
    SpatialDropout1D SpatialDropout2D SpatialDropout3D SpectralNormalization
    StackedRNNCells Subtract TimeDistributed UnitNormalization UpSampling1D
    UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D ZeroPadding3D
""".split()
_NUMPY = """
    Abs Absolute Add All Amax Amin Any Argmax Argmin Average BroadcastTo Ceil
    Clip Concatenate Cos Cosh Cumprod Cumsum Divide DivideNoNan Dot Einsum
    Equal Exp ExpandDims Expm1 Flip Floor FloorDivide FullLike GetItem Greater
    GreaterEqual Isfinite Isinf Isnan Less LessEqual Log Log10 Log1p Log2
    Logaddexp LogicalAnd LogicalNot LogicalOr Matmul Max Maximum Mean Median
    Min Minimum Mod Moveaxis Multiply NanToNum Negative NotEqual OnesLike Pad
    Power Prod Ravel Reciprocal Repeat Reshape Roll Round Sign Sin Sinh Sort
    Split Sqrt Square Squeeze Stack Std Subtract Sum Swapaxes Take
    TakeAlongAxis Tan Tanh Tensordot Tile Transpose Tril Triu TrueDivide Var
    Where ZerosLike
""".split()
_NN = """
    AveragePool Celu Conv ConvTranspose DepthToSpace DepthwiseConv
    DotProductAttention Elu Gelu Glu HardShrink HardSigmoid HardSilu HardTanh
    LayerNorm LeakyRelu LogSigmoid LogSoftmax MaxPool Normalize OneHot RMSNorm
    Relu Relu6 Selu SeparableConv Sigmoid Silu SoftShrink Softmax Softplus
    Softsign SpaceToDepth SparsePlus SparseSigmoid Sparsemax Squareplus
    TanhShrink Threshold
""".split()
_MODELS = {
    ("keras", "Sequential"),
    ("keras.src.models.sequential", "Sequential"),
    ("keras.src.models.functional", "Functional"),
}
_PARTS = {
    *(("keras.layers", name) for name in _LAYERS),
    *(("keras.src.ops.numpy", name) for name in _NUMPY),
    *(("keras.src.ops.nn", name) for name in _NN),
    *(
        ("keras.src.ops.math", name)
        for name in ("Erf", "Erfinv", "Logsumexp", "Rsqrt", "TopK")
    ),
    *(("keras.src.ops.core", name) for name in ("Cast", "StopGradient")),
    ("keras.src.ops.image", "Resize"),
    ("keras.src.applications.convnext", "LayerScale"),
    ("keras.src.applications.convnext", "StochasticDepth"),
    ("keras.src.applications.inception_resnet_v2", "CustomScaleLayer"),
    *(("keras.regularizers", name) for name in ("L1", "L2", "L1L2")),
    ("keras.regularizers", "OrthogonalRegularizer"),
    *(
        ("keras.constraints", name)
        for name in ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")
    ),
    *_MODELS,
}
# Arguments that Keras also takes as a name.
NAMED = {
    "activation": set(
        """
        celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu
        hard_swish hard_tanh leaky_relu linear log_sigmoid log_softmax mish
        relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign
        sparse_plus sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink
        threshold
        """.split()
    ),
    "regularizer": {"l1", "l2", "l1_l2", "L1", "L2", "L1L2"},
    "constraint": {"max_norm", "min_max_norm", "non_neg", "unit_norm"},
}
DTYPES = {
    *("bool", "float16", "float32", "float64", "bfloat16"),
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
}
POLICIES = {*DTYPES, "mixed_float16", "mixed_bfloat16"}


def is_model(module, name):
    """Whether a part is a model: a network of other parts."""
    return (module, name) in _MODELS


def find(module, name):
    """Returns the class of Keras that a module and a name stand for.

    Example:

    >>> find("keras.layers", "Dense") is keras.layers.Dense
    True
    """
    described = f"{name!r:.100} of {module!r:.100}"
    # What is no string may not be hashable.
    both = isinstance(module, str) and isinstance(name, str)
    if not both or (module, name) not in _PARTS:
        raise ValueError(f"{described} is not one of the supported layers.")
    found = getattr(importlib.import_module(module), name, None)
    if not isinstance(found, type) or found.__module__[:10] != "keras.src.":
        raise ValueError(
            f"{described} is not a class of Keras {keras.__version__}."
        )
    refuse_registered(name)
    return found


def refuse_registered(name):
    """Raises an error if a name is that of a user's class.

    Keras searches its registry first, even for names of its own classes.
    """
    if keras.saving.get_registered_object(name) is not None:
        raise ValueError(
            f"{name!r:.100} is registered for a class or function that is not "
            "part of Keras."
        )
