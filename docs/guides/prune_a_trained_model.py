# %% [markdown]
"""
# Prune a trained model

`tf_gems` makes a trained network sparse in a few epochs of `fit`, keeps its
accuracy, and returns a plain Keras model. The network can be any Keras 3 model:
your own, one of `keras.applications`, or one of KerasHub.

## A trained model
"""

# %%
import keras
from sklearn.datasets import load_digits

import tf_gems as gems

images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8, 1) / 8 - 1).astype("float32")
(x, y), validation = (
    (images[:1400], labels[:1400]),
    (images[1400:], labels[1400:]),
)

keras.utils.set_random_seed(0)
layers = keras.layers
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        layers.Conv2D(32, 3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.DepthwiseConv2D(3, padding="same", use_bias=False),
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.Conv2D(32, 1, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
model.fit(x, y, batch_size=64, epochs=8, verbose=0)
dense = model.evaluate(*validation, verbose=0)[1]

# %% [markdown]
"""
## Prune it
"""

# %%
sparse = gems.SparseModel(model, start="trained")
sparse.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
sparse.fit(
    x,
    y,
    batch_size=64,
    epochs=8,
    validation_data=validation,
    verbose=0,
    callbacks=[gems.GradualMagnitudeCallback(0.8)],
)
pruned = sparse.evaluate(*validation, verbose=0)[1]
plain = gems.strip(sparse)  # a plain Keras model, zeros in its kernels

# %% [markdown]
"""
`start="trained"` keeps the weights of the model. At the beginning of each epoch, the callback
prunes the smallest weights, until 80 % are zero. Pruning ends after three quarters of the epochs,
and at least two epochs before the last one, so that the network can recover. `validation_data` and
the epoch logs (`sparsity`, `density`) show the progress.

* **Epochs.** Start with a quarter to a half of the epochs of the original training, and at least
  six. If pruning lasts less than four epochs, the callback also prunes within epochs, eight times in
  total; `frequency` sets the number of times per epoch. In a `fit` of one epoch, everything is
  pruned before the first batch.
* **Learning rate.** Use a fine-tuning learning rate: a tenth to a third of the peak of the original
  training.
* **`EarlyStopping`.** With `restore_best_weights=True`, it would restore pruned weights. This raises
  an error unless `start_from_epoch` is after the last pruning step. The message names the epoch.

## What is pruned
"""

# %%
print(gems.PruningReport(model, filters="no_depthwise"))

# %% [markdown]
"""
Kernels are pruned; biases and normalization parameters are not. With `start="trained"`, depthwise
kernels are not pruned either: they have few weights, and each of their outputs depends on only about
nine of them. The report lists every weight with the reason. Its last lines show what each policy
prunes:

| `filters` | pruned weights |
| --- | --- |
| `"no_depthwise"` | all kernels except depthwise ones, as in TF Model Optimization |
| `"all"` | all kernels |
| `"pointwise"` | 1x1 convolutions with stride 1, which LiteRT computes faster if they are sparse |
| a regular expression, or a list of them | the kernels whose path matches |

The target sparsity refers to the weights that are prunable under `filters`.

## Distribution over the layers

The weights with the smallest magnitude in the whole network are not the least important ones. Layers
differ in scale, so one ranking of all weights empties first layers and depthwise kernels. The default,
`distribution="lamp"` (Lee et al., 2021), ranks each weight relative to its own layer. Alternatives
are `"erk"`, which gives small layers a higher density based on their shapes; `"uniform"`, the same
sparsity for each layer; and `{regular expression: sparsity}`. A warning names each layer that is left
with its minimum of one weight.

The table shows the accuracy in percent at 90 % zeros, after six to eight epochs of gradual pruning
from the same trained weights, with one seed. The networks are small and trained for minutes, so
compare the columns with each other and not with published results. The second column corresponds to
TF Model Optimization: the same sparsity for every layer, without depthwise kernels. The target then
refers to the other kernels only. `resnet` has no depthwise kernels.

| network | dense | `global` | `uniform (no_depthwise)` | `erk` | `lamp` | `erk (no_depthwise)` | `lamp (no_depthwise)` |
| --- | --- | --- | --- | --- | --- | --- | --- |
| digits | 97.0 | 9.8 | 89.7 | 85.4 | 83.4 | 95.7 | 94.5 |
| keywords | 98.3 | 8.5 | 77.6 | 70.6 | 74.8 | 91.7 | 94.3 |
| recurrent | 97.9 | 29.2 | 78.5 | 88.2 | 80.9 | 93.2 | 85.5 |
| mobilenet | 59.0 | 11.2 | 48.0 | 51.7 | 55.5 | 59.3 | 64.1 |
| resnet | 44.2 | 44.0 | - | 42.2 | 40.8 | - | - |

One ranking of all magnitudes (`"global"`) leaves four of the five networks near chance. It is the
best distribution for `resnet`, whose layers have similar scales. `"lamp"` and `"erk"` are equal on
average; `"lamp"` is better for `keras.applications.MobileNet`. At 80 % zeros, `"lamp"` and `"erk"`
are within a point of each other on digits, keywords and mobilenet. At 95 %, none of these networks is
near its dense accuracy. At 98 %, all of them are near chance after so few epochs
(`benchmarks/results/trained_sparsities.json`).

`python benchmarks/trained.py --render=benchmarks/results/trained.json` prints all measurements and a
description of each network.

## Comparison with TF Model Optimization

TF Model Optimization pruned a copy of each network in `tf_keras`, from the same trained weights, with
the same data, epochs, optimizer and schedule. It used its own defaults: the same sparsity for every
layer, without depthwise kernels. Both libraries pruned the same kernels, for 24 epochs (digits,
keywords), 12, 8 or 4. The table shows the test accuracy in percent, as the mean over the seeds:

| network | zeros | seeds | dense | `GradualMagnitudeCallback` | TF Model Optimization |
| --- | --- | --- | --- | --- | --- |
| digits | 80% | 3 | 96.8 | 96.9 | 97.1 |
| digits | 90% | 3 | 96.8 | 97.0 | 96.6 |
| digits | 95% | 3 | 96.8 | 96.0 | 90.9 |
| keywords | 80% | 3 | 98.4 | 98.8 | 99.2 |
| keywords | 90% | 3 | 98.4 | 98.1 | 97.9 |
| keywords | 95% | 3 | 98.4 | 92.8 | 80.7 |
| mobilenet_half | 80% | 1 | 47.7 | 47.0 | 45.1 |
| mobilenet_half | 90% | 1 | 47.7 | 44.5 | 45.5 |
| mobilenet_half | 95% | 1 | 47.7 | 41.9 | 13.6 |
| mobilenet_v2_half | 80% | 1 | 45.2 | 47.3 | 47.6 |
| mobilenet_v2_half | 90% | 1 | 45.2 | 46.0 | 44.8 |
| mobilenet_v2_half | 95% | 1 | 45.2 | 46.7 | 34.7 |
| resnet20 | 90% | 1 | 60.1 | 58.2 | 56.2 |
| resnet20 | 95% | 1 | 60.1 | 55.2 | 48.8 |
| resnet20 | 98% | 1 | 60.1 | 43.6 | 26.0 |
| resnet20_all | 90% | 1 | 87.7 | 82.7 | 79.0 |
| resnet20_all | 95% | 1 | 87.7 | 76.3 | 67.9 |
| resnet20_all | 98% | 1 | 87.7 | 61.1 | 33.8 |

`mobilenet_half` and `mobilenet_v2_half` are `keras.applications.MobileNet` x0.5 and `MobileNetV2` x0.5
on 20 classes of Tiny ImageNet, trained for 40 epochs. `resnet20` is a ResNet-20 on a tenth of
CIFAR-10. `resnet20_all` is the same network on the whole data set with random shifts and flips; it
was pruned for only four epochs.

On the first five networks, the two libraries are within about two points of each other at 80 and
90 % zeros, which is the variation between seeds. At 95 % and 98 %, the same sparsity for every layer
is too high for the first layers, and `"lamp"` is 5 to 28 points better. On `resnet20_all`, both are far below
the dense network after four epochs: `GradualMagnitudeCallback` by 5.0, 11.4 and 26.6 points. It is
3.7, 8.4 and 27.3 points better than TF Model Optimization. If it prunes only at the beginning of epochs
(`frequency=1`), it has 74.4 % instead of 76.3 %. The results are in
`benchmarks/results/trained_tfmot.json`.

## Optimizers for sparse weights

`gems.optimizers.hyperbolic_step(optimizer)` (Jacobs et al., 2026) multiplies each weight by a factor
after each step, so that weights change their sign more easily.
`gems.optimizers.density_scaling(optimizer)` (Adnan et al., 2026) gives sparse neurons smaller steps.
The table shows the accuracy in percent after gradual pruning with Adam, as the mean of three seeds:

| network | zeros | Adam | `hyperbolic_step` | `density_scaling` |
| --- | --- | --- | --- | --- |
| digits | 90% | 95.4 | 96.4 | 94.8 |
| digits | 98% | 24.7 | 36.6 | 30.9 |
| resnet | 90% | 42.8 | 41.5 | 42.5 |
| resnet | 98% | 29.0 | 33.8 | 29.3 |

At 98 % zeros, the hyperbolic step improves `resnet` with every seed, by four points or more. At 90 %,
the differences are within the variation between seeds, and so are all differences of
`density_scaling`. Neither is used by default. The step acts times the learning rate: with
SGD and a learning rate of 0.1, pass `alpha=2` instead of the default of 200. The results are in
`benchmarks/results/trained_steps.json`.

## Quantization-aware training

`gems.export_litert(sparse, path, form="int8", representative_data=x)` rounds a trained network to
8-bit integers. If this reduces the accuracy, train with the rounding:
"""

# %%
aware = gems.QuantizationAwareModel(plain, representative_data=x)
aware.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
aware.fit(x, y, batch_size=64, epochs=2, verbose=0)
rounded = aware.evaluate(*validation, verbose=0)[1]  # accuracy of the file
int8 = gems.export_litert(
    aware, "int8.tflite", inputs=validation[0][:100], form="int8"
)

# %% [markdown]
"""
`aware` rounds kernels and activations where LiteRT rounds them, so `evaluate` measures the accuracy
of the file. Zeros stay zero. Kernels are rounded per output channel. The ranges of activations are
initialized with `representative_data`, updated during training as moving averages, and written to the
file. The report of the export states by how many quantization steps its outputs differ from those of
`aware`.

Try quantization after training first. The table shows the accuracy of the files in percent, at 90 %
zeros. Each network was trained for four more epochs after pruning:

| network | seeds | sparse, float | post-training quantization | quantization-aware training |
| --- | --- | --- | --- | --- |
| digits | 3 | 96.1 | 96.1 | 96.0 |
| mobilenet_half | 1 | 47.2 | 47.5 | 47.3 |

Neither network loses accuracy by rounding, so quantization-aware training does not help here
(`python benchmarks/quantization.py`).

Layers that LiteRT does not compute in 8-bit integers, such as `GRU`, raise an error before training.
`gems.strip(aware)` returns the float model. `aware.save("aware.keras")` saves a model that can be
loaded and trained further.

## One-shot pruning

Without training, only lower sparsities keep the accuracy. Pass data to `find`: the statistics of batch
normalization no longer fit after weights are removed, and are re-estimated with the data.
"""

# %%
again = gems.SparseModel(gems.strip(aware), start="trained")
ticket = gems.methods.Magnitude(0.85).find(again, (x, y))
again.start_finetuning(ticket)
again.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
one_shot = again.evaluate(*validation, verbose=0)[1]

# %% [markdown]
"""
`gems.recalibrate_batch_norm(model, data)` does the same for any Keras model.

SNIP and the other saliency methods rank all weights of the network together by default, as their
papers do at initialization. For trained networks with depthwise kernels, no distribution is always
the best: SNIP at 90 % zeros, followed by a few epochs of training, reaches 86.7 % on digits and 80.7 %
on keywords with `"global"`, and 95.5 and 63.7 % with `"lamp"` (one seed,
`benchmarks/results/trained_snip.json`). `GradualMagnitudeCallback` with as many epochs reaches 94.5
and 94.3 %.

A target sparsity below the present fraction of zeros raises an error, because zeros would count as
kept weights.

## Reduce latency

`gems.export_litert(sparse, "model.tflite")` writes a file that was run and compared with Keras. With
LiteRT, zeros in 1x1 convolutions reduce latency if the network meets the requirements of XNNPACK: call
`gems.export.make_sparse_ready(model)` *before* pruning, and prune with `filters="pointwise"`.
`make_sparse_ready` inlines nested models, as in transfer learning (`base(x)`), moves `Rescaling` and
`Normalization` behind the first convolution, and lists what it could not change. See
[Deploy](deploy.py).
"""
