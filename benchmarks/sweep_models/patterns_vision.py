"""User patterns: images, volumes, audio and point clouds."""

import keras
import numpy as np
from keras import layers
from keras import ops

from sweep_models.case import PACKAGE
from sweep_models.case import Problem
from sweep_models.case import classes_of
from sweep_models.case import integers
from sweep_models.case import normal
from sweep_models.case import register
from sweep_models.case import uniform

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


def normalized(x, *arguments, kind=layers.Conv2D, **kwargs):
    """Applies a convolution, normalization and ReLU."""
    x = kind(*arguments, padding="same", use_bias=False, **kwargs)(x)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))


@pattern
def unet():
    """U-Net: skip connections, transposed convolutions and a mask output."""
    inputs = keras.Input((16, 16, 3))
    a = normalized(inputs, 8, 3)
    b = normalized(layers.MaxPooling2D()(a), 12, 3)
    c = normalized(layers.MaxPooling2D()(b), 16, 3)
    x = layers.Conv2DTranspose(12, 2, strides=2)(c)
    x = normalized(layers.Concatenate()([x, b]), 12, 3)
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = normalized(layers.Concatenate()([x, a]), 8, 3)
    outputs = layers.Conv2D(2, 1)(x)
    x = uniform(16, 16, 16, 3)
    y = (x.mean(-1) > 0.5).astype("int32")
    return Problem(keras.Model(inputs, outputs), x, y)


@pattern
def denoising_autoencoder():
    """A convolutional autoencoder whose targets are its inputs."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            layers.GaussianNoise(0.1),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="elu"),
            layers.Conv2D(8, 3, strides=2, padding="same", activation="elu"),
            layers.Conv2DTranspose(8, 3, strides=2, padding="same"),
            layers.LeakyReLU(),
            layers.Conv2DTranspose(1, 3, strides=2, padding="same"),
        ]
    )
    x = uniform(16, 12, 12, 1)
    return Problem(model, x, x, loss="mse")


@pattern
def super_resolution():
    """Sub-pixel convolution of images of any size."""
    inputs = keras.Input((None, None, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(4, 3, padding="same")(x)

    @serializable
    class DepthToSpace(layers.Layer):
        def call(self, x):
            shape = ops.shape(x)
            rows, columns = shape[1], shape[2]
            x = ops.reshape(x, (-1, rows, columns, 2, 2))
            x = ops.transpose(x, (0, 1, 3, 2, 4))
            return ops.reshape(x, (-1, rows * 2, columns * 2, 1))

        def compute_output_shape(self, shape):
            return (shape[0], None, None, 1)

    model = keras.Model(inputs, DepthToSpace()(x))
    x = uniform(16, 8, 8, 1)
    return Problem(model, x, x.repeat(2, 1).repeat(2, 2), loss="mse")


@pattern
def siamese():
    """Siamese network: one encoder, two images and a distance."""
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(8),
        ],
        name="encoder",
    )

    @serializable
    class Distance(layers.Layer):
        def call(self, left, right):
            squares = ops.sum(ops.square(left - right), -1, keepdims=True)
            return ops.sqrt(ops.maximum(squares, 1e-7))

    left, right = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    distance = Distance()(encoder(left), encoder(right))
    outputs = layers.Dense(1, activation="sigmoid")(distance)
    x = [uniform(32, 8, 8, 1), uniform(32, 8, 8, 1, seed=1)]
    y = integers(2, 32, 1).astype("float32")
    model = keras.Model([left, right], outputs)
    return Problem(model, x, y, loss="binary_crossentropy")


@pattern
def triplet_loss():
    """Three named images, one embedding, and a triplet loss by `add_loss`."""
    encoder = keras.Sequential(
        [keras.Input((10,)), layers.Dense(16, "relu"), layers.Dense(4)]
    )

    @serializable
    class Triplet(layers.Layer):
        def call(self, inputs):
            anchor, same, other = inputs
            near = ops.sum(ops.square(anchor - same), -1)
            far = ops.sum(ops.square(anchor - other), -1)
            self.add_loss(ops.mean(ops.relu(near - far + 0.5)))
            return anchor

    names = ("anchor", "positive", "negative")
    inputs = {name: keras.Input((10,), name=name) for name in names}
    outputs = Triplet()([encoder(inputs[name]) for name in names])
    x = {name: normal(32, 10, seed=i) for i, name in enumerate(names)}
    return Problem(keras.Model(inputs, outputs), x, loss=None)


@serializable
class Patches(layers.Layer):
    """Splits an image into patches, and adds a class token and positions."""

    def __init__(self, size=4, units=16, **kwargs):
        super().__init__(**kwargs)
        self.size, self.units = size, units
        self.project = layers.Conv2D(units, size, strides=size)

    def build(self, shape):
        self.project.build(shape)
        count = (shape[1] // self.size) * (shape[2] // self.size)
        self.token = self.add_weight(
            shape=(1, 1, self.units), initializer="zeros", name="class_token"
        )
        self.positions = self.add_weight(
            shape=(1, count + 1, self.units),
            initializer="random_normal",
            name="positions",
        )

    def call(self, x):
        x = self.project(x)
        shape = ops.shape(x)
        x = ops.reshape(x, (-1, shape[1] * shape[2], self.units))
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, self.units))
        return ops.concatenate([token, x], 1) + self.positions

    def get_config(self):
        config = {"size": self.size, "units": self.units}
        return {**super().get_config(), **config}


def encoder_block(x, heads, units):
    """A pre-normalization transformer block."""
    y = layers.LayerNormalization()(x)
    x = layers.Add()(
        [x, layers.MultiHeadAttention(heads, units // heads)(y, y)]
    )
    y = layers.LayerNormalization()(x)
    y = layers.Dense(2 * units, activation="gelu")(y)
    return layers.Add()([x, layers.Dense(units)(y)])


@pattern
def vision_transformer():
    """ViT with a class token and learned positions."""
    inputs = keras.Input((16, 16, 3))
    x = Patches()(inputs)
    for _ in range(2):
        x = encoder_block(x, 2, 16)
    x = layers.LayerNormalization()(x)
    outputs = layers.Dense(3)(x[:, 0])
    x = uniform(16, 16, 16, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def mlp_mixer():
    """MLP-Mixer: dense layers over patches, then over channels."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(12, 2, strides=2)(inputs)
    x = layers.Reshape((16, 12))(x)
    for _ in range(2):
        y = layers.Permute((2, 1))(layers.LayerNormalization()(x))
        y = layers.Dense(16)(layers.Dense(24, activation="gelu")(y))
        x = layers.Add()([x, layers.Permute((2, 1))(y)])
        y = layers.Dense(24, activation="gelu")(layers.LayerNormalization()(x))
        x = layers.Add()([x, layers.Dense(12)(y)])
    outputs = layers.Dense(3)(layers.GlobalAveragePooling1D()(x))
    x = uniform(24, 8, 8, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def conv_lstm():
    """ConvLSTM that predicts the next video frame."""
    model = keras.Sequential(
        [
            keras.Input((4, 8, 8, 1)),
            layers.ConvLSTM2D(6, 3, padding="same", return_sequences=True),
            layers.BatchNormalization(),
            layers.ConvLSTM2D(4, 3, padding="same"),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )
    x = uniform(16, 4, 8, 8, 1)
    return Problem(model, x, x[:, -1], loss="mse")


@pattern
def volumes():
    """3D convolutions and pooling of volumetric scans."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 8, 1)),
            layers.Conv3D(6, 3, activation="relu"),
            layers.MaxPooling3D(2),
            layers.BatchNormalization(),
            layers.Conv3D(8, 2, activation="relu"),
            layers.GlobalAveragePooling3D(),
            layers.Dropout(0.2),
            layers.Dense(2),
        ]
    )
    x = uniform(16, 8, 8, 8, 1)
    return Problem(model, x, classes_of(x, 2))


@pattern
def video_classifier():
    """A small network on each video frame, followed by a GRU."""
    picture = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SeparableConv2D(6, 3, activation="relu"),
            layers.GlobalMaxPooling2D(),
        ]
    )
    inputs = keras.Input((5, 8, 8, 3))
    x = layers.TimeDistributed(picture)(inputs)
    outputs = layers.Dense(3)(layers.GRU(8)(x))
    x = uniform(16, 5, 8, 8, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def depthwise_network():
    """Inverted residuals: small depthwise kernels, and hard swish."""
    inputs = keras.Input((16, 16, 3))
    x = normalized(inputs, 8, 3, strides=2)
    for _ in range(2):
        y = normalized(x, 16, 1)
        y = normalized(y, 3, kind=layers.DepthwiseConv2D)
        y = layers.Activation("hard_silu")(y)
        x = layers.Add()([x, layers.Conv2D(8, 1, use_bias=False)(y)])
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    x = uniform(24, 16, 16, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def squeeze_and_excitation():
    """Channel attention by a broadcast multiplication, and swish."""
    inputs = keras.Input((12, 12, 3))
    x = layers.Conv2D(16, 3, activation="swish")(inputs)
    s = layers.GlobalAveragePooling2D(keepdims=True)(x)
    s = layers.Conv2D(4, 1, activation="swish")(s)
    s = layers.Conv2D(16, 1, activation="sigmoid")(s)
    x = layers.Multiply()([x, s])
    x = layers.Conv2D(16, 3, groups=4, activation="mish")(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    x = uniform(24, 12, 12, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def augmentation_inside():
    """Random flips, rotations and contrast, and Rescaling, in the model."""
    model = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.RandomFlip("horizontal"),
            layers.RandomRotation(0.1),
            layers.RandomContrast(0.1),
            layers.Rescaling(1 / 127.5, offset=-1),
            layers.Conv2D(8, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    x = (255 * uniform(24, 12, 12, 3)).astype("float32")
    return Problem(model, x, classes_of(x, 3))


@pattern
def resizing_of_bytes():
    """uint8 images, resized and rescaled in the model."""
    inputs = keras.Input((20, 20, 3), dtype="uint8")
    x = layers.Resizing(12, 12)(inputs)
    x = layers.Rescaling(1 / 255.0)(x)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    x = integers(256, 24, 20, 20, 3).astype("uint8")
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def transfer_learning():
    """`base(x)` with a frozen base and a new head."""
    base = keras.Sequential(
        [
            keras.Input((12, 12, 3)),
            layers.Conv2D(8, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
        ],
        name="base",
    )
    base.trainable = False
    inputs = keras.Input((12, 12, 3))
    x = layers.Dropout(0.2)(base(inputs, training=False))
    x = layers.Dense(16, activation="relu")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    x = uniform(24, 12, 12, 3)
    return Problem(model, x, classes_of(x, 3))


@pattern
def partly_frozen():
    """All but the last layers of a network are frozen."""
    base = keras.applications.MobileNet(
        (32, 32, 3), alpha=0.25, weights=None, include_top=False, pooling="avg"
    )
    for layer in base.layers[:-6]:
        layer.trainable = False
    x = layers.Dense(3)(base.output)
    model = keras.Model(base.input, x)
    x = uniform(16, 32, 32, 3)
    return Problem(model, x, classes_of(x, 3))


@pattern
def detection_heads():
    """Boxes and classes at two scales, with dicts of outputs and losses."""
    inputs = keras.Input((16, 16, 3))
    fine = normalized(inputs, 8, 3, strides=2)
    coarse = normalized(fine, 12, 3, strides=2)
    kind, box = layers.Conv2D(3, 1), layers.Conv2D(4, 1)
    levels = [layers.Conv2D(8, 1)(level) for level in (fine, coarse)]
    flat = [
        [layers.Reshape((-1, n))(head(level)) for level in levels]
        for head, n in ((kind, 3), (box, 4))
    ]
    outputs = {
        "classes": layers.Concatenate(axis=1)(flat[0]),
        "boxes": layers.Concatenate(axis=1)(flat[1]),
    }
    y = {"classes": integers(3, 16, 80), "boxes": normal(16, 80, 4)}
    loss = {
        "classes": keras.losses.SparseCategoricalCrossentropy(True),
        "boxes": keras.losses.Huber(),
    }
    x = uniform(16, 16, 16, 3)
    return Problem(keras.Model(inputs, outputs), x, y, loss=loss)


@pattern
def point_cloud():
    """PointNet: a predicted transform and 1D convolutions."""

    def transform(x, size):
        y = layers.Conv1D(8, 1, activation="relu")(x)
        y = layers.GlobalMaxPooling1D()(y)
        y = layers.Dense(
            size * size,
            kernel_initializer="zeros",
            bias_initializer=keras.initializers.Constant(np.eye(size).ravel()),
        )(y)
        return layers.Dot(axes=(2, 1))([x, layers.Reshape((size, size))(y)])

    inputs = keras.Input((24, 3))
    x = transform(inputs, 3)
    x = normalized(x, 16, 1, kind=layers.Conv1D)
    outputs = layers.Dense(3)(layers.GlobalMaxPooling1D()(x))
    x = normal(24, 24, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def keyword_spotting():
    """A spectrogram in the model, followed by depthwise convolutions."""

    @serializable
    class Spectrogram(layers.Layer):
        def call(self, x):
            real, imaginary = ops.stft(x, 32, 16, 32)
            power = ops.square(real) + ops.square(imaginary)
            return ops.log(power + 1e-3)[..., None]

    inputs = keras.Input((256,))
    x = Spectrogram()(inputs)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.DepthwiseConv2D(3, activation="relu")(x)
    outputs = layers.Dense(3)(layers.GlobalAveragePooling2D()(x))
    x = normal(24, 256)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def audio_conv1d():
    """Raw audio: strided, dilated and separable 1D convolutions."""
    model = keras.Sequential(
        [
            keras.Input((128, 1)),
            layers.Conv1D(8, 9, strides=4, activation="relu"),
            layers.DepthwiseConv1D(3, activation="relu"),
            layers.SeparableConv1D(8, 3, activation="relu"),
            layers.Conv1D(8, 3, dilation_rate=2, padding="causal"),
            layers.GroupNormalization(groups=4),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    x = normal(24, 128, 1)
    return Problem(model, x, classes_of(x, 3))


@pattern
def speech_with_ctc():
    """OCR or speech recognition: a recurrent network with the CTC loss."""
    inputs = keras.Input((24, 12, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Reshape((12, 48))(x)
    x = layers.Dense(16, activation="relu")(x)
    x = layers.Bidirectional(
        layers.LSTM(8, return_sequences=True, dropout=0.25)
    )(x)
    model = keras.Model(inputs, layers.Dense(6, activation="softmax")(x))
    x = uniform(16, 24, 12, 1)
    y = integers(6, 16, 4, low=1)
    return Problem(model, x, y, loss=keras.losses.CTC())


@pattern
def style_statistics():
    """Instance statistics and a Gram matrix in the network."""

    @serializable
    class Gram(layers.Layer):
        def call(self, x):
            flat = ops.reshape(x, (-1, 36, 8))
            return ops.einsum("bnc,bnd->bcd", flat, flat) / 36.0

    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3)(inputs)
    x = layers.GroupNormalization(groups=-1)(x)
    x = layers.Flatten()(Gram()(layers.PReLU(shared_axes=[1, 2])(x)))
    outputs = layers.Dense(3)(x)
    x = uniform(24, 8, 8, 3)
    return Problem(keras.Model(inputs, outputs), x, classes_of(x, 3))


@pattern
def radiance_field():
    """A Fourier embedding of coordinates, skip connections and two outputs."""
    inputs = keras.Input((6, 3))
    waves = [inputs]
    for power in range(3):
        waves += [ops.sin(2.0**power * inputs), ops.cos(2.0**power * inputs)]
    encoded = ops.concatenate(waves, -1)
    x = layers.Dense(24, activation="relu")(encoded)
    x = layers.Dense(24, activation="relu")(ops.concatenate([x, encoded], -1))
    outputs = [
        layers.Dense(3, activation="sigmoid")(x),
        layers.Dense(1, activation="softplus")(x),
    ]
    x = normal(24, 6, 3)
    y = [uniform(24, 6, 3), uniform(24, 6, 1)]
    return Problem(keras.Model(inputs, outputs), x, y, loss=["mse", "mae"])
