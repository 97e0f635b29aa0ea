# %% [markdown]
"""
# Deploy

This guide deploys a pruned model to Android and other LiteRT devices, to a web
page, to a microcontroller, to an NPU, and to TensorFlow Serving. Each export is
run and compared with the Keras model before it is written. If the outputs
differ, the export raises an error.

Exports require the TensorFlow backend of Keras.

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
report lists the zeros, the encoding and the bytes of each weight, the largest
difference from Keras, and the programs that ran the file.
"""

# %%
report = gems.export_litert(sparse, "model.tflite", inputs=test[0])
print(report)

# %% [markdown]
"""
A smaller file is not necessarily faster:

* Sparse weights are expanded when the file is loaded, so the memory at run time
  is that of a dense model.
* XNNPACK uses the zeros of 1x1 convolutions on ARM and in browsers if more than
  two thirds of them are zero and the surrounding layers meet its requirements.
  `gems.export.make_sparse_ready(model)` rewrites a MobileNet of
  `keras.applications` accordingly, before pruning.
  `SparseModel(model, filters="pointwise")` then prunes only these convolutions.
* On x86 with AVX, XNNPACK computes convolutions densely. Zeros make dense layers
  faster there: pass `optimize="latency"`, or prune with `pattern="4x1"`.

See [inference speed](../speed.md) for measurements.

## Float16 and 8-bit weights

`form="float16"` stores weights in half precision. `form="int8"` computes in
8-bit integers. It needs a hundred real examples or more to calibrate the ranges
of activations.
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

The runtimes of microcontrollers and of most NPUs have no `DENSIFY` operator,
which expands sparse weights, and require 8-bit inputs and outputs. For these
devices, remove whole channels, which makes a network both smaller and faster:
prune with `pattern="channel"`, and call `gems.compact`.
`gems.plan(model, speedup=2, target="native")` lists the kernels whose channels
can be removed.
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
All exports take `compact=True`, which removes the channels first. The file is
then compared with the model that you passed, and the report shows the remaining
parameters and multiply-adds.

**Arm Ethos-U.** `export_ethos_u` writes the int8 file and compiles it with Vela,
Arm's compiler (`pip install tf_gems[ethos-u]`). The report compares Vela's
estimates of cycles, memory and encoded weights with those of the dense twin.
These are estimates; nothing was measured on an NPU.

```text
report = gems.export_ethos_u(model, "model.tflite", x[:200],
                             accelerator="ethos-u55-128")
print(report)
```

**TensorFlow Lite for Microcontrollers.** `export_micro` writes an int8 file
without zeros: each weight is stored as one bit per value, followed by the nonzero
values. The file is run with the interpreter of that runtime
(`pip install tf_gems[micro]`). Register the operator `DECODE` on the device.

```text
print(gems.export_micro(model, "micro.tflite", x[:200]))
```

For other NPUs, check with the vendor's compiler which operators are supported.
See [other runtimes](../elsewhere.md) for FPGAs, OpenVINO, Core ML and ONNX
Runtime.

## The web

LiteRT.js runs TFLite files in browsers. `gems.page.write_page(model, directory)`
writes a page on which the pruned network runs beside its dense twin, and
`tf_gems serve DIRECTORY` opens it. Recipes write such a page to the directory of
each run.

## TensorFlow Serving: SavedModel

The SavedModel stores only the kept weights, and expands them once when it is
loaded. It can be loaded with TensorFlow alone.
"""

# %%
saved = gems.export_saved_model(small, "saved_model")
print(saved.bytes, saved.dense_bytes)

# %% [markdown]
"""
## All forms at once

`deployment_report` writes all forms and runs them on your data. It reports bytes,
accuracy, latency, and for each layer the reason if it does not run sparsely. The
command is `tf_gems report model.keras --output=exported`.
"""

# %%
report = gems.deployment_report(
    small, "exported", test, forms=["float32", "saved_model"], runs=10
)
assert np.isclose(report.rows[0]["accuracy"], report.accuracy, atol=0.02)
print(report)

# %% [markdown]
"""
[File sizes](../sizes.md) compares the size and the accuracy of nine forms with
those of TF Model Optimization.
"""
