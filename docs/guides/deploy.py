# %% [markdown]
"""
# Deploy

This guide takes a pruned model to Android and other LiteRT devices, to a web
page, to a microcontroller, to an NPU, and to TensorFlow Serving. Each export
is run and compared with Keras before it is written. An export that computes
something else is refused.

Exports need the TensorFlow backend of Keras.

## A pruned model
"""

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

import tf_gems as gems

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
x, y, test = images[:1400], labels[:1400], (images[1400:], labels[1400:])

model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.Conv2D(32, 3, activation="relu"),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(x, y, epochs=4, verbose=0)
sparse = gems.SparseModel(model, start="trained")
sparse.compile("adam", loss, metrics=["accuracy"])
callback = gems.GradualMagnitudeCallback(0.85)
sparse.fit(x, y, epochs=4, callbacks=[callback], verbose=0)

# %% [markdown]
"""
## Android, iOS and Linux devices: LiteRT

`export_litert` writes a TFLite file that stores only the kept weights. The
report names the zeros, the encoding and the bytes of each weight, the largest
difference from Keras, and the programs that ran the file.
"""

# %%
report = gems.export_litert(sparse, "model.tflite", inputs=test[0])
print(report)

# %% [markdown]
"""
A smaller file need not be a faster one:

* The file is expanded when it is loaded, so it takes the memory of a dense one.
* XNNPACK uses the zeros of 1x1 convolutions on ARM and in browsers, if more
  than two thirds of them are zero and the layers around them allow it.
  `gems.export.make_sparse_ready(model)` rewrites a Keras MobileNet for it,
  before pruning. `SparseModel(model, filters="pointwise")` then prunes exactly
  those convolutions.
* On x86 with AVX, XNNPACK computes convolutions densely. Dense layers gain
  from zeros there: pass `optimize="latency"`, or prune with `pattern="4x1"`.

[Speed](../speed.md) has the measurements.

## Smaller numbers: float16 and 8 bits

`form="float16"` halves the numbers. `form="int8"` computes in 8-bit integers.
It needs a hundred real examples or more to calibrate the ranges.
"""

# %%
half = gems.export_litert(sparse, "half.tflite", form="float16")
int8 = gems.export_litert(
    sparse, "int8.tflite", form="int8", representative_data=x[:200]
)
print(report.bytes, half.bytes, int8.bytes)

# %% [markdown]
"""
## Microcontrollers and NPUs

The runtimes of microcontrollers and of most NPUs have no `DENSIFY` operator
and want 8-bit inputs and outputs. There, removing whole channels makes a
network smaller and faster: prune with `pattern="channel"`, and call
`gems.compact`. `gems.plan(model, speedup=2, target="native")` names the kernels
whose channels can be removed.
"""

# %%
channels = gems.SparseModel(gems.strip(sparse), start="trained")
channels.compile("adam", loss, metrics=["accuracy"])
callback = gems.GradualMagnitudeCallback(0.9, pattern="channel")
channels.fit(x, y, epochs=4, callbacks=[callback], verbose=0)
small, compaction = gems.compact(gems.strip(channels))
print(compaction)

# %%
micro = gems.export_litert(
    small,
    "micro.tflite",
    form="int8",
    representative_data=x[:200],
    io="int8",
    sparse=False,
)
print(micro.bytes)

# %% [markdown]
"""
Every export does this itself with `compact=True`: the file is compared with the
model that you passed in, and the report says how many parameters and
multiply-adds are left.

**Arm Ethos-U.** `export_ethos_u` writes the int8 file, compiles it with Vela,
Arm's compiler (`pip install tf_gems[ethos-u]`), and reports Vela's estimates of
cycles, memory and encoded weights beside those of the dense twin. No NPU was
measured here.

```text
report = gems.export_ethos_u(model, "model.tflite", x[:200],
                             accelerator="ethos-u55-128")
print(report)
```

**TensorFlow Lite for Microcontrollers.** `export_micro` writes an int8 file whose
weights are stored without zeros, one bit for each value and the values that are
not zero, and runs it with that runtime's own interpreter
(`pip install tf_gems[micro]`). On the device, register the operator `DECODE`.

```text
print(gems.export_micro(model, "micro.tflite", x[:200]))
```

Check with the vendor's compiler which operators another NPU supports.
[Where zeros go elsewhere](../elsewhere.md) covers other runtimes.

## The web

TFLite files run in browsers with LiteRT.js. `gems.page.write_page(model,
directory)` writes a page on which the pruned network runs beside its dense
twin, and `tf_gems serve DIRECTORY` opens it. The directory of a recipe's run
has such a page.

## TensorFlow Serving: SavedModel

The SavedModel stores kept weights only, and expands them once when it is
loaded. Loading needs plain TensorFlow.
"""

# %%
saved = gems.export_saved_model(small, "saved_model")
print(saved.bytes, saved.dense_bytes)

# %% [markdown]
"""
## Everything at once

`deployment_report` writes all forms, runs them on your data, and reports bytes,
accuracy, latency and the reason for each layer that does not run sparsely. On
the command line it is `tf_gems report model.keras --output=exported`.
"""

# %%
report = gems.deployment_report(
    small, "exported", test, forms=["float32", "saved_model"], runs=10
)
assert np.isclose(report.rows[0]["accuracy"], report.accuracy, atol=0.02)
print(report)

# %% [markdown]
"""
[Sizes](../sizes.md) compares the bytes and the accuracy of nine forms with
those of TF Model Optimization.
"""
