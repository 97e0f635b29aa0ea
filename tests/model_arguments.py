"""Valid and invalid arguments of functions that take models, files or data."""

import keras
import numpy as np
from argument_kinds import COUNT
from argument_kinds import METHOD
from argument_kinds import NUMBER
from argument_kinds import POSITIVE
from argument_kinds import REWIRING
from argument_kinds import SEED
from argument_kinds import SPARSITY
from argument_kinds import SWITCH
from argument_kinds import TRAINED

import tf_gems

NETWORK = {
    "filters": {"none", "function"},
    "mask": set(),
    "score_initializer": {"none", "function", "class"},
    "seed": {"none", *SEED},
    "phase": set(),
    "candidates": {"none"},
}


def of_models():
    gems = tf_gems
    sparse = gems.SparseModel(_dense(), seed=0)
    gems.methods.Magnitude(0.5).find(sparse).apply(sparse)
    layer = keras.layers.Dense(3)
    return {
        gems.GemLayer: (
            {"layer": layer},
            {
                **NETWORK,
                "layer": {"layer"},
                "filters": {"none", "function", "text"},
                "candidates": {"none", "empty_list"},
            },
        ),
        gems.SparseModel: (
            {"model": _dense()},
            {
                **NETWORK,
                "phase": {"none"},
                "model": set(),
                "kernel_initializer": {"none"},
                "start": set(),
            },
        ),
        gems.QuantizationAwareModel: (
            {"model": _dense(), "representative_data": np.ones((2, 2))},
            {
                "model": set(),
                "representative_data": set(),
                "momentum": {"zero"},
                "batches": COUNT,
                "filters": {"none", "function"},
            },
        ),
        gems.strip: ({}, {"model": set()}),
        gems.unwrap: ({}, {"model": set()}),
        gems.compact: (
            {"model": _dense()},
            {"model": set(), "inputs": {"none"}},
        ),
        gems.load_pretrained: (
            {"network": _dense(), "path": "no.weights.h5"},
            {"network": set(), "path": set()},
        ),
        gems.recalibrate_batch_norm: (
            {"model": _normalized(), "x": np.ones((2, 2))},
            {
                "model": {"layer"},
                "x": set(),
                "batches": COUNT,
            },
        ),
        **_of_exports(sparse),
        **_of_runs(),
        **_of_tuning(),
    }


def _dense():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])


def _images():
    layers = [keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((2, 2)), *layers])


def _normalized():
    layers = [keras.Input((2,)), keras.layers.BatchNormalization()]
    return keras.Sequential(layers)


def _of_exports(sparse):
    gems, exports = tf_gems, tf_gems.export
    inputs = {"none"}
    found = {
        exports.export_gem: (
            {"model": sparse, "path": "new.gem"},
            {
                "model": set(),
                "path": {"text"},
                "inputs": inputs,
                "dtype": {"none"},
                "tolerance": {"none", "zero", *POSITIVE},
            },
        ),
        exports.make_sparse_ready: ({}, {"model": set()}),
        exports.readiness_report: ({}, {"model": set()}),
        exports.to_tf_keras: ({}, {"model": set()}),
        exports.from_tf_keras: (
            {"twin": object(), "model": _dense()},
            {"twin": set()},
        ),
    }
    if keras.backend.backend() != "tensorflow":
        return found
    litert = {
        "model": set(),
        "path": set(),
        "inputs": inputs,
        "form": set(),
        "representative_data": inputs,
        "batch_size": {"none"},
        "optimize": set(),
        "tolerance": {"none", "zero", *POSITIVE},
        "io": set(),
        "sparse": SWITCH,
        "compact": SWITCH,
    }
    int8 = {
        "model": set(),
        "path": set(),
        "representative_data": set(),
        "inputs": inputs,
        "tolerance": {"none", "zero", *POSITIVE},
        "compact": SWITCH,
    }
    given = {
        "model": sparse,
        "path": "new.tflite",
        "representative_data": np.ones((2, 2)),
    }
    data = np.ones((2, 2)), None
    return {
        **found,
        exports.export_litert: (
            {"model": sparse, "path": "new.tflite"},
            litert,
        ),
        exports.export_ethos_u: (given, {**int8, "accelerator": set()}),
        exports.export_micro: (given, int8),
        exports.export_saved_model: (
            {"model": sparse, "directory": "new"},
            {
                "model": set(),
                "directory": {"text"},
                "inputs": inputs,
                "overwrite": SWITCH,
                "tolerance": {"none", "zero", *POSITIVE},
                "compact": SWITCH,
            },
        ),
        exports.deployment_report: (
            {"model": sparse, "directory": "new", "data": data},
            {
                "model": set(),
                "directory": {"text"},
                "data": set(),
                "forms": set(),
                "representative_data": inputs,
                "runs": {"zero", "large"},
                "metric": {"function", "class"},
                "compact": SWITCH,
            },
        ),
        gems.page.write_page: (
            {
                "model": _images(),
                "directory": "new",
                "inputs": np.ones((2, 2, 2)),
            },
            {
                "model": set(),
                "directory": {"text"},
                "inputs": set(),
                "labels": {"none"},
                "classes": {"empty_list"},
                "mean": NUMBER,
                "deviation": POSITIVE,
                "logits": SWITCH,
                "history": {"none", "dict"},
                "optimize": set(),
                "name": {"none", "empty", "text"},
            },
        ),
    }


def _of_runs():
    gems, file = tf_gems, tf_gems.ticket_file
    kernel = np.ones((2, 3), "float32")
    parts = {"masks": {"k": np.eye(2, 3, dtype=bool)}, "weights": {"k": kernel}}
    data = np.ones((4, 2), "float32"), np.zeros(4, "int64")
    comparison = {
        "build": lambda seed: _dense(),
        "train": [data],
        "test": [data],
        "methods": ["random"],
        "sparsities": [0.5],
        "epochs": 1,
        "directory": "new",
        "optimizer": "sgd",
        "loss": "sparse_categorical_crossentropy",
        "dense": False,
        "seeds": [0],
        "verbose": 0,
    }
    image = {"input_shape": (32, 32, 3), "classes": 3}
    common = {
        "input_shape": set(),
        "classes": set(),
        "kernel_initializer": set(),
        "kernel_regularizer": {"none", "function"},
    }
    networks = {
        gems.zoo.mobilenet_v2: {},
        gems.zoo.mobilenet_v2_sparse_ready: {
            "alpha": {"half"},
            "stem": set(),
            "affine": SWITCH,
        },
        gems.zoo.resnet18: {"stem": set()},
        gems.zoo.resnet50: {"affine": SWITCH},
        gems.zoo.vgg16: {},
        gems.zoo.wide_resnet28_2: {},
    }
    return {
        gems.compare: (
            comparison,
            {
                "build": {"function"},
                "train": {"function", "class"},
                "test": set(),
                "methods": set(),
                "sparsities": set(),
                "epochs": COUNT,
                "directory": {"text"},
                "optimizer": set(),
                "loss": {"function", "class", "layer"},
                "learning_rate": {"none", *POSITIVE},
                "metric": {"function"},
                "seeds": set(),
                "checks": {"empty_list", "dict"},
                "dense": SWITCH,
                "steps_per_execution": {"none", *COUNT},
                "strategy": {"none"},
                "executor": {"none"},
                "verbose": {"zero", "true"},
            },
        ),
        gems.datasets.load: (
            {"name": "digits"},
            {
                "name": set(),
                "data_dir": {"none", "text"},
                "fraction": set(),
                "download": SWITCH,
                "image_size": {"none"},
            },
        ),
        gems.datasets.by_epoch: ({}, {"pipeline": {"function", "class"}}),
        gems.page.copy_page: (
            {"directory": "no run", "target": "new"},
            {"directory": set(), "target": set()},
        ),
        gems.page.make_server: (
            {"directory": "."},
            {"directory": set(), "port": {"zero"}},
        ),
        gems.page.serve: (
            {"directory": "."},
            {"directory": set(), "port": {"zero"}},
        ),
        gems.sanity.check: (
            {
                "ticket": gems.Ticket(**parts),
                "fit": len,
                "evaluate": len,
            },
            {
                "ticket": set(),
                "fit": {"function", "class"},
                "evaluate": {"function", "class"},
                "seeds": set(),
                "model": {"none"},
                "inverted": {"none"},
                "tolerance": {"zero", *POSITIVE},
                "verbose": {"zero", "true"},
            },
        ),
        gems.methods.DynamicSparseTraining: (
            {"target_sparsity": 0.9},
            REWIRING,
        ),
        gems.methods.Method: (
            {"target_sparsity": 0.9},
            {**METHOD, "target_sparsity": SPARSITY},
        ),
        gems.methods.Trained: ({"target_sparsity": 0.9, "epochs": 1}, TRAINED),
        file.fingerprint: (
            {"shapes": [[2]], "prunable": [True]},
            {"shapes": set(), "prunable": {"list"}},
        ),
        file.read: (
            {"path": "no.gem"},
            {"path": set(), "max_bytes": set()},
        ),
        file.write: (
            {"path": "new.gem", **parts, "metadata": {}},
            {
                "path": {"text"},
                "masks": set(),
                "weights": set(),
                "metadata": {"dict", "config"},
                "dtype": {"none"},
                "config": {"none", "dict", "config"},
            },
        ),
        **{
            network: (image, {**common, **more})
            for network, more in networks.items()
        },
    }


def _of_tuning():
    try:
        from tf_gems import tuning
    except ImportError:  # KerasTuner is optional.
        return {}
    return {
        tuning.GemMinerHyperModel: (
            {"build": len, "target_sparsity": 0.9},
            {
                "build": {"function", "class"},
                "target_sparsity": SPARSITY,
                "epochs": {"none", *COUNT},
                "finetuning_epochs": {"zero", *COUNT},
                "finetuning_learning_rate": {"none", "zero", *POSITIVE},
                "regularization": set(),
                "freeze_period": {"none"},
                "learning_rate": set(),
            },
        ),
        tuning.best_ticket: ({}, {"tuner": set()}),
    }
