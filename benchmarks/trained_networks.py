"""Small networks and their datasets, for training and pruning.

Each network trains in minutes on a CPU. The docstring says if it is a stock
network, or if only part of the dataset is used. TFDS reads CIFAR-10 and MNIST
from `TFDS_DATA_DIR`. `TINY_IMAGENET_DIR` is the directory of Tiny ImageNet,
with `train` and `val`.
"""

import os

import keras
import numpy as np
import tensorflow as tf

from tf_gems.datasets import in_tfds
from tf_gems.datasets import tiny_imagenet

layers = keras.layers


def _normalization():
    return layers.BatchNormalization(momentum=0.9)


def _depthwise_blocks(x, filters, count):
    for _ in range(count):
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = layers.ReLU()(_normalization()(x))
        x = layers.Conv2D(filters, 1, use_bias=False)(x)
        x = layers.ReLU()(_normalization()(x))
    return x


def digits(seed):
    """DS-CNN with four blocks of 64 channels on scikit-learn's digits."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32")
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(64, 3, padding="same", use_bias=False)(x)
    x = _depthwise_blocks(layers.ReLU()(_normalization()(x)), 64, 4)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(10)(x), name="digits")
    data = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
    return model, *data, {"epochs": 15, "prune": 8, "batch_size": 64}


def _sounds(count, seed, classes=12, frames=32, bands=20):
    """Returns synthetic spectrograms (n, 32, 20) of chirps in noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    times = np.arange(frames)[:, None]
    places = np.arange(bands)[None, :]
    # Each class is a chirp with these parameters.
    shared = np.random.default_rng(99)
    start = shared.uniform(2, bands - 3, (classes, 2))
    slope = shared.uniform(-0.35, 0.35, (classes, 2))
    beat = shared.uniform(0.15, 0.9, (classes, 2))
    x = random.normal(0, 0.7, (count, frames, bands))
    for i, label in enumerate(labels):
        shift = random.integers(-4, 5)
        for part in range(2):
            line = start[label, part] + slope[label, part] * (times - shift)
            line = line + random.normal(0, 0.4)
            tone = np.exp(-0.5 * ((places - line) / 0.8) ** 2)
            loud = 1 + np.sin(beat[label, part] * (times - shift))
            x[i] += random.uniform(0.6, 1.2) * tone * loud
    return x[..., None].astype("float32"), labels


def keywords(seed):
    """DS-CNN for keywords (64 channels, 3 blocks) on synthetic sounds."""
    x = inputs = keras.Input((32, 20, 1))
    x = layers.Conv2D(64, (10, 4), strides=2, padding="same", use_bias=False)(x)
    x = _depthwise_blocks(layers.ReLU()(_normalization()(x)), 64, 3)
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(12)(x), name="keywords")
    data = _sounds(1000, seed), _sounds(1000, 1000 + seed)
    return model, *data, {"epochs": 12, "prune": 6, "batch_size": 64}


def recurrent(seed):
    """SeparableConv1D and GRU on the same synthetic sounds, as sequences."""
    x = inputs = keras.Input((32, 20))
    for filters in (64, 64):
        x = layers.SeparableConv1D(filters, 5, padding="same", use_bias=False)(
            x
        )
        x = layers.ReLU()(_normalization()(x))
    x = layers.GRU(64)(layers.MaxPooling1D(2)(x))
    model = keras.Model(inputs, layers.Dense(12)(x), name="recurrent")
    train, test = _sounds(1000, seed), _sounds(1000, 1000 + seed)
    train, test = ((x[..., 0], y) for x, y in (train, test))
    return model, train, test, {"epochs": 12, "prune": 6, "batch_size": 64}


def cifar10(train, test, size, data_dir=None):
    """Returns part of CIFAR-10, averaged down to `size`, scaled to [-1, 1]."""
    fraction = train / 50_000
    found = in_tfds.load("cifar10", data_dir, fraction, False)
    sets = []
    for images, labels in (found[0], (found[1][0][:test], found[1][1][:test])):
        edge = 32 // size
        images = images.reshape(-1, size, edge, size, edge, 3).mean((2, 4))
        sets.append(((images / 127.5 - 1).astype("float32"), labels))
    return sets


def residual(size, blocks, name, width=1.0):
    """ResNet with three stages of 16, 32 and 64 channels, for CIFAR-10."""
    widths = [round(filters * width) for filters in (16, 32, 64)]
    x = inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(widths[0], 3, padding="same", use_bias=False)(x)
    x = layers.ReLU()(_normalization()(x))
    stages = [
        (filters, 1 if block or filters == widths[0] else 2)
        for filters in widths
        for block in range(blocks)
    ]
    for filters, strides in stages:
        y = layers.Conv2D(
            filters, 3, strides=strides, padding="same", use_bias=False
        )(x)
        y = layers.ReLU()(_normalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = _normalization()(y)
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides=strides, use_bias=False)(x)
            x = _normalization()(x)
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10)(x), name=name)


def resnet(seed):
    """ResNet-8 of width 16 on 3,000 images of CIFAR-10, 16x16, reduced."""
    model = residual(16, 1, "resnet")
    train, test = cifar10(3000, 1000, 16)
    return model, train, test, {"epochs": 12, "prune": 6, "batch_size": 64}


def resnet20(seed):
    """ResNet-20 on 5,000 images of CIFAR-10, a tenth: reduced."""
    model = residual(32, 3, "resnet20")
    train, test = cifar10(5_000, 5_000, 32)
    return model, train, test, {"epochs": 20, "prune": 8, "batch_size": 128}


def _augmented(images, labels, seed, size):
    """Returns batches of randomly shifted and flipped images."""
    height, width, channels = images.shape[1:]

    def augment(image, label):
        image = tf.image.random_flip_left_right(image, seed)
        image = tf.pad(image, [(4, 4), (4, 4), (0, 0)])
        shape = (height, width, channels)
        return tf.image.random_crop(image, shape, seed), label

    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed).map(augment).batch(size)
    return data.prefetch(1)


def resnet20_all(seed):
    """ResNet-20 on all of CIFAR-10, randomly shifted and flipped."""
    model = residual(32, 3, "resnet20")
    train, test = cifar10(50_000, 10_000, 32)
    batches = _augmented(*train, seed, 128)
    return model, (batches,), test, {"epochs": 24, "prune": 4}


def _for_few_steps(model):
    """Sets the momentum of all batch normalization to 0.9. Returns the model.

    The default of Keras is 0.99 or 0.999. After a few thousand steps, such
    statistics still belong to old weights, and the evaluation is at chance
    level.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    return model


def small_mobilenet(channels):
    """Returns keras.applications.MobileNet x0.25 for images of 32x32."""
    model = keras.applications.MobileNet(
        (32, 32, channels),
        alpha=0.25,
        weights=None,
        classes=10,
        classifier_activation=None,
        dropout=1e-3,
    )
    return _for_few_steps(model)


def mobilenet(seed):
    """keras.applications.MobileNet x0.25, 32x32, on 3,000 images of MNIST."""
    model = small_mobilenet(1)
    found = in_tfds.load("mnist", None, 3000 / 60_000, False)
    sets = []
    for images, labels in found[:2]:
        images = np.pad(images / 127.5 - 1, [(0, 0), (2, 2), (2, 2), (0, 0)])
        sets.append((images[:3000].astype("float32"), labels[:3000]))
    return model, *sets, {"epochs": 12, "prune": 6, "batch_size": 64}


def _photographs(application):
    """A network of keras.applications x0.5 on 20 classes of Tiny ImageNet."""
    directory = os.environ.get("TINY_IMAGENET_DIR")
    data = tiny_imagenet.load(directory, 1.0, False, 64)
    sets = [
        ((images / 127.5 - 1).astype("float32"), labels)
        for images, labels in (data.train, data.test)
    ]
    model = application(
        (64, 64, 3),
        alpha=0.5,
        weights=None,
        classes=data.classes,
        classifier_activation=None,
    )
    return model, *sets, {"epochs": 40, "prune": 12, "batch_size": 64}


def mobilenet_half(seed):
    """keras.applications.MobileNet x0.5 on 20 classes of Tiny ImageNet."""
    return _photographs(keras.applications.MobileNet)


def mobilenet_v2_half(seed):
    """keras.applications.MobileNetV2 x0.5 on 20 classes of Tiny ImageNet."""
    model, *rest = _photographs(keras.applications.MobileNetV2)
    return _for_few_steps(model), *rest


NETWORKS = {
    "digits": digits,
    "keywords": keywords,
    "recurrent": recurrent,
    "resnet": resnet,
    "mobilenet": mobilenet,
    "resnet20": resnet20,
    "resnet20_all": resnet20_all,
    "mobilenet_half": mobilenet_half,
    "mobilenet_v2_half": mobilenet_v2_half,
}
