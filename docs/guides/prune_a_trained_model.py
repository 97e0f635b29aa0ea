# %% [markdown]
"""
# Prune a trained model

`tf_gems` makes a trained network sparse in a few epochs of ordinary `fit`,
keeps it accurate, and returns a plain Keras model. Any Keras 3 model will do:
your own, one of `keras.applications`, or one of KerasHub.

## A trained model to begin with
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
`start="trained"` keeps the weights of the model. The callback prunes the smallest weights
at the beginning of each epoch, more of them every time, until 80 % are zero.
Pruning ends after three quarters of the epochs, at least two epochs before the last, so
that the network can recover. `validation_data` and the epoch logs (`sparsity`, `density`) show
how far it is.

* **Epochs.** Start with a quarter to a half of those that the model was trained for, six or
  more. Where pruning lasts less than four epochs, it also prunes within them, eight times in
  all; `frequency` sets how many times an epoch. In a single epoch, everything is pruned before
  the first batch.
* **Learning rate.** One that fine-tunes: a tenth to a third of the peak that trained the
  model.
* **`EarlyStopping`.** One with `restore_best_weights=True` would bring pruned weights back,
  and is refused unless its `start_from_epoch` lies behind the last pruning. The message
  names the epoch.

## What is pruned
"""

# %%
print(gems.PruningReport(model, filters="no_depthwise"))

# %% [markdown]
"""
Kernels are pruned, biases and normalization are not. With `start="trained"` depthwise
kernels are left out as well: they hold few weights, and each output depends on nine of
them or so. The report lists every weight with the reason, and ends with what each
named policy prunes:

| `filters` | prunes |
| --- | --- |
| `"no_depthwise"` | all kernels but depthwise ones, as TF Model Optimization does |
| `"all"` | all kernels |
| `"pointwise"` | 1x1 convolutions of stride 1, which LiteRT runs faster for their zeros |
| a regular expression, or a list of them | the kernels whose path it matches |

The target counts the weights that are prunable under `filters`.

## How the zeros are spread

The smallest weights of the network as a whole are not the least important ones: layers
differ in scale, and one ranking across them empties first layers and depthwise kernels. The
default, `distribution="lamp"` (Lee et al., 2021), ranks each weight relative to its own
layer. Alternatives are `"erk"`, which gives small layers a higher density and looks at
shapes only; `"uniform"`, the same sparsity for each; and `{regular expression: sparsity}`.
A layer that is left with its last weight is named in a warning.

Accuracy in percent at 90 % zeros, after six to eight epochs of gradual pruning from the
same trained weights, one seed. The networks are small and trained for minutes, so read the
columns against each other and not against the literature. The second column is TF Model
Optimization's policy, every layer at the same sparsity and depthwise kernels left out (the
target then counts the other kernels only). `resnet` has no depthwise kernels.

| network | dense | `global` | `uniform (no_depthwise)` | `erk` | `lamp` | `erk (no_depthwise)` | `lamp (no_depthwise)` |
| --- | --- | --- | --- | --- | --- | --- | --- |
| digits | 97.0 | 9.8 | 89.7 | 85.4 | 83.4 | 95.7 | 94.5 |
| keywords | 98.3 | 8.5 | 77.6 | 70.6 | 74.8 | 91.7 | 94.3 |
| recurrent | 97.9 | 29.2 | 78.5 | 88.2 | 80.9 | 93.2 | 85.5 |
| mobilenet | 59.0 | 11.2 | 48.0 | 51.7 | 55.5 | 59.3 | 64.1 |
| resnet | 44.2 | 44.0 | - | 42.2 | 40.8 | - | - |

One ranking of all magnitudes (`"global"`) leaves four of the five networks near chance. In
`resnet`, whose layers are alike, it is the best. `"lamp"` and `"erk"` are level on average;
`"lamp"` is ahead on `keras.applications.MobileNet`. At 80 % zeros `"lamp"` and `"erk"` are
within a point of each other on digits, keywords and mobilenet. At 98 %, in so few epochs, all
of them end near chance (`benchmarks/results/trained_sparsities.json`), and at 95 % none of
these networks is near its dense accuracy.

`python benchmarks/trained.py --render=benchmarks/results/trained.json` prints all that was
measured, and what each network is.

## Beside TF Model Optimization

TF Model Optimization pruned a twin of each network in `tf_keras`, from the same trained
weights, with the same data, epochs, optimizer and schedule, and its own defaults: every
layer at the same sparsity, depthwise kernels left out. Both pruned the same kernels, for 24
epochs (digits, keywords), 12, 8 or 4. Test accuracy in percent, mean over the seeds:

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
| resnet20 | 90% | 1 | 60.1 | 58.2 | 56.2 |
| resnet20 | 95% | 1 | 60.1 | 55.2 | 48.8 |
| resnet20_all | 90% | 1 | 87.7 | 82.7 | 79.0 |
| resnet20_all | 95% | 1 | 87.7 | 76.3 | 67.9 |

`mobilenet_half` is `keras.applications.MobileNet` x0.5 on 20 classes of Tiny ImageNet, trained
for 40 epochs; `resnet20` is a ResNet-20 on a tenth of CIFAR-10; `resnet20_all` is the same on
all of it, randomly shifted and flipped, pruned for four epochs only. Of the others,
at 80 and 90 % zeros the two are within about two points of each other, which is what seeds
differ by. At 95 % the same sparsity for every layer is too much for the first ones, and `"lamp"`
is 5 to 28 points ahead. Four epochs are few: of `resnet20_all` both stay far below the dense
network, ours by 5.0 and 11.4 points, 3.7 and 8.4 ahead. Pruned at the
beginning of epochs only (`frequency=1`), ours has 74.4 % instead of 76.3. The figures are in
`benchmarks/results/trained_tfmot.json`.

## Optimizers for sparse weights

`gems.optimizers.hyperbolic_step(optimizer)` (Jacobs et al., 2026) multiplies each weight after
a step, so that signs change more easily. `gems.optimizers.density_scaling(optimizer)` (Adnan et
al., 2026) gives sparse neurons smaller steps. Accuracy in percent after gradual pruning with
Adam, mean of three seeds:

| network | zeros | Adam | `hyperbolic_step` | `density_scaling` |
| --- | --- | --- | --- | --- |
| digits | 90% | 95.4 | 96.4 | 94.8 |
| digits | 98% | 24.7 | 36.6 | 30.9 |
| resnet | 90% | 42.8 | 41.5 | 42.5 |
| resnet | 98% | 29.0 | 33.8 | 29.3 |

At 98 % of `resnet` the hyperbolic step is ahead with every seed, by four points or more. At
90 % the differences are those of seeds, and so are all of `density_scaling`. Neither is a
default. The figures are in `benchmarks/results/trained_steps.json`.

## Train for 8 bits

`gems.export_litert(sparse, path, form="int8", representative_data=x)` rounds a network to
8-bit integers once it is trained. Where that costs accuracy, train with the rounding:
"""

# %%
aware = gems.QuantizationAwareModel(plain, representative_data=x)
aware.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
aware.fit(x, y, batch_size=64, epochs=2, verbose=0)
rounded = aware.evaluate(*validation, verbose=0)[1]  # that of the file
int8 = gems.export_litert(
    aware, "int8.tflite", inputs=validation[0][:100], form="int8"
)

# %% [markdown]
"""
`aware` computes with kernels and activations rounded where LiteRT rounds them, so that
`evaluate` tells the accuracy of the file. Zeros stay zero. Kernels are rounded per output
channel. The ranges of activations begin with those of `representative_data`, follow the
training as moving averages, and are the ranges of the file; the report of the export says by
how many steps its outputs differ from those of `aware`.

Try rounding after training first. Accuracy of the files in percent, at 90 % zeros, each
network trained for four more epochs after pruning:

| network | seeds | sparse, float | 8 bits after training | 8 bits trained for |
| --- | --- | --- | --- | --- |
| digits | 3 | 96.1 | 96.1 | 96.0 |
| mobilenet_half | 1 | 47.2 | 47.5 | 47.3 |

Neither network loses anything by the rounding, so training for it gains nothing here
(`python benchmarks/quantization.py`).

Layers that LiteRT does not compute in 8-bit integers, such as `GRU`, are refused by name
before anything is trained. `gems.strip(aware)` gives back the float model. A model that
was saved with `aware.save("aware.keras")` goes on where it was.

## In one shot

Without training, fewer zeros are possible. Give `find` data: it re-estimates the statistics
of batch normalization, which no longer fit once weights are missing.
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

SNIP and the other saliency methods rank all weights of the network at once, as their papers do
at initialization. Of trained networks with depthwise kernels no distribution is the best: SNIP
at 90 % zeros, then trained for a few epochs, keeps 86.7 % on digits and 80.7 % on keywords with
`"global"`, 95.5 and 63.7 % with `"lamp"` (one seed, `benchmarks/results/trained_snip.json`).
`GradualMagnitudeCallback` in as many epochs keeps 94.5 and 94.3 %.

A target below what is zero already is refused: zeros would count as kept.

## Faster, not only smaller

`gems.export_litert(sparse, "model.tflite")` writes a file that was run and compared. Zeros save
time on LiteRT in 1x1 convolutions, in networks that are laid out for it: call
`gems.export.make_sparse_ready(model)` *before* pruning, and prune with
`filters="pointwise"`. It takes transfer-learning models apart (`base(x)`), moves
`Rescaling` and `Normalization` behind the first convolution, and lists what it could not
change. [Deploy](deploy.py) shows it.
"""
