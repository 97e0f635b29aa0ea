"""Every public argument is checked: what is absurd is refused by name."""

import importlib
import inspect
import math
import pkgutil

import keras
import numpy as np
import pytest

import tf_gems

# What a user, a script or a file may pass by mistake. No generator and no
# number of elements is among them that would be a good value by chance.
HOSTILE = {
    "none": None,
    "nan": math.nan,
    "inf": math.inf,
    "minus_inf": -math.inf,
    "negative": -1,
    "fraction": -0.5,
    "zero": 0,
    "half": 1.5,
    "true": True,
    "huge": 10**400,
    "large": 10**18,
    "empty": "",
    "text": "no such thing",
    "bytes": b"bytes",
    "empty_list": [],
    "list": [None],
    "dict": {},
    "config": {"class_name": "Nothing", "config": {}},
    "object": object(),
    "class": int,
    "function": len,
    "array": np.array([math.nan, 1.0]),
    "complex": 1j,
}


def module_names():
    names = ["tf_gems"]
    for found in pkgutil.iter_modules(tf_gems.__path__):
        if not found.name.startswith("_"):
            names.append(f"tf_gems.{found.name}")
    return names


def public():
    """Yields name and object of every public class and function."""
    seen = set()
    for module_name in sorted(module_names()):
        module = importlib.import_module(module_name)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.ismodule(value) or id(value) in seen:
                continue
            if callable(value) and value.__module__.startswith("tf_gems"):
                seen.add(id(value))
                yield f"{module_name.removeprefix('tf_gems')[1:]}.{name}", value


# What is good by kind of argument; all else of `HOSTILE` is refused.
COUNT = {"large"}
ANY = set(HOSTILE)
OPTIONAL = {"none"}
SPARSITY = {"zero"}
SWITCH = {"true"}
POSITIVE = {"half", "large"}
NUMBER = {*POSITIVE, "zero", "negative", "fraction"}
SEED = {"zero", "large"}
PATH = {"text", "bytes"}
PENALTY = {"half", "zero", "large"}
METHOD = {"distribution": set(), "pattern": set()}
TRAINED = {
    **METHOD,
    "target_sparsity": SPARSITY,
    "epochs": COUNT,
    "learning_rate": OPTIONAL | POSITIVE,
}
REWIRING = {
    **TRAINED,
    "update_period": COUNT,
    "fraction": {"zero"} - {"zero"},
    "end": set(),
    "seed": SEED,
}
ROUNDS = {**TRAINED, "rate": set(), "rounds": OPTIONAL | COUNT}
SALIENCY = {
    **METHOD,
    "target_sparsity": SPARSITY,
    "batches": OPTIONAL | COUNT,
}


def arguments():
    """Returns dict from callables to good arguments, and what else is good."""
    gems, s = tf_gems, {"target_sparsity": 0.9}
    schedule = {"initial": NUMBER, "final": NUMBER}
    scores = [np.array([1.0, 2.0])]
    methods = gems.methods
    return {
        gems.schedules.Constant: ({}, {"value": NUMBER}),
        gems.schedules.Geometric: (
            {},
            {"initial": POSITIVE, "final": POSITIVE},
        ),
        gems.schedules.Polynomial: ({}, {**schedule, "power": POSITIVE}),
        gems.schedules.Cosine: ({}, schedule),
        gems.schedules.get: ({}, {"identifier": NUMBER}),
        gems.schedules.geometric_counts: (
            {"size": 100, "density": 0.1, "freezes": 3},
            {
                "size": COUNT,
                "density": set(),
                "freezes": set(),
                "rounding": set(),
            },
        ),
        gems.patterns.NOfM: (
            {"n": 2, "m": 4},
            {"n": set(), "m": COUNT, "axis": {"negative", "zero"}},
        ),
        gems.patterns.get: ({}, {"identifier": set()}),
        gems.distributions.Global: ({}, {"minimum": {"zero", "large"}}),
        gems.distributions.SmartRatio: ({}, {"last": {"zero"}}),
        gems.distributions.PerPath: ({}, {"sparsities": set()}),
        gems.distributions.get: ({}, {"identifier": set()}),
        gems.masks.keep_largest: (
            {"scores": scores, "count": 1},
            {"scores": set(), "count": {"zero"}, "among": OPTIONAL},
        ),
        gems.initializers.SignedConstant: (
            {},
            {"gain": POSITIVE, "seed": {"none", "zero"}},
        ),
        gems.gem_miner.get_preset: ({}, {"name": set()}),
        gems.layers.RoundMask: ({}, {"threshold": {"zero"}}),
        gems.layers.TopKMask: (
            {"sparsity": 0.5},
            {"sparsity": SPARSITY, "scope": set(), "magnitude": SWITCH},
        ),
        gems.GemMinerCallback: (
            s,
            {
                **METHOD,
                "target_sparsity": SPARSITY,
                "freeze_period": COUNT,
                "regularization": PENALTY,
                "stop_at_target": SWITCH,
                "saturate_scores": SWITCH,
                "rounding": set(),
                "epochs": OPTIONAL | COUNT,
                "inverted": SWITCH,
                "verbose": {"zero", "true"},
            },
        ),
        gems.callbacks.Backup: (
            {"directory": "backup"},
            {
                "directory": PATH - {"bytes"},
                "belongs_to": {"empty_list", "list"},
            },
        ),
        gems.methods.EdgePopupCallback: (
            {**s, "distribution": "global"},
            {
                "target_sparsity": SPARSITY,
                "distribution": set(),
                "gradual": SWITCH,
                "freeze_period": COUNT,
                "regularization": PENALTY,
                "epochs": OPTIONAL | COUNT,
            },
        ),
        gems.callbacks.GemTensorBoard: (
            {"log_dir": "logs"},
            {
                "log_dir": PATH - {"bytes"},
                "histogram_freq": {"zero", "large"},
            },
        ),
        gems.GradualMagnitudeCallback: (
            s,
            {
                **METHOD,
                "target_sparsity": SPARSITY,
                "begin": {"zero"},
                "end": OPTIONAL,
                "schedule": {"none", "zero"},
                "epochs": OPTIONAL | COUNT,
            },
        ),
        gems.methods.RewindPoint: (
            {"steps": 1},
            {"steps": {"zero", "large"}, "path": OPTIONAL | PATH - {"bytes"}},
        ),
        gems.methods.RewiringCallback: (
            {"growth": None},
            {
                "growth": {"none", "function", "class"},
                "update_period": COUNT,
                "fraction": set(),
                "end": set(),
            },
        ),
        gems.callbacks.SetEpoch: ({}, {"data": set()}),
        methods.EdgePopup: (
            {**s, "distribution": "global"},
            {
                "target_sparsity": SPARSITY,
                "epochs": COUNT,
                "learning_rate": OPTIONAL | POSITIVE,
                "gradual": SWITCH,
                "freeze_period": COUNT,
                "regularization": PENALTY,
                "distribution": set(),
            },
        ),
        methods.GemMiner: (
            s,
            {
                **TRAINED,
                "freeze_period": COUNT,
                "regularization": PENALTY,
                "stop_at_target": SWITCH,
                "saturate_scores": SWITCH,
                "inverted": SWITCH,
            },
        ),
        methods.GradualMagnitude: (
            s,
            {
                **TRAINED,
                "begin": {"zero"},
                "end": OPTIONAL,
                "schedule": {"none", "zero"},
            },
        ),
        methods.Grasp: (s, {**SALIENCY, "temperature": POSITIVE}),
        methods.Inverted: ({}, {"method": set()}),
        methods.IterativeMagnitude: (
            s,
            {**ROUNDS, "rewind_steps": {"zero", "large"}},
        ),
        methods.LearningRateRewinding: (s, ROUNDS),
        methods.Magnitude: (s, {**METHOD, "target_sparsity": SPARSITY}),
        methods.ProsPr: (
            {**s, "steps": 3, "batches": 4},
            {
                **METHOD,
                "target_sparsity": SPARSITY,
                "steps": {"zero"},
                "learning_rate": POSITIVE,
                "batches": OPTIONAL | COUNT,
            },
        ),
        methods.RandomPruning: (
            s,
            {**METHOD, "target_sparsity": SPARSITY, "seed": SEED},
        ),
        methods.RigL: (s, REWIRING),
        methods.Snip: (s, SALIENCY),
        methods.SparseEvolutionaryTraining: (s, REWIRING),
        methods.SynFlow: (
            s,
            {**METHOD, "target_sparsity": SPARSITY, "rounds": COUNT},
        ),
        methods.get: ({}, {"identifier": set()}),
        **_of_tickets(),
        **_of_networks(),
        **_of_models(),
    }


def _of_tickets():
    gems, file = tf_gems, tf_gems.ticket_file
    kernel = np.ones((2, 3), "float32")
    mask = np.eye(2, 3, dtype=bool)
    parts = {"masks": {"k": mask}, "weights": {"k": kernel}}
    ticket = gems.Ticket(**parts)
    data = file.encode(**parts, metadata={})
    return {
        gems.Ticket: (
            parts,
            {
                "masks": set(),
                "weights": set(),
                "metadata": {"none", "dict", "config"},
                "config": {"none", "dict", "config"},
            },
        ),
        file.decode: ({"data": data}, {"data": set(), "max_bytes": COUNT}),
        file.encode: (
            {**parts, "metadata": {}},
            {
                "masks": set(),
                "weights": set(),
                "metadata": {"dict", "config"},
                "dtype": {"none"},
                "config": {"none", "dict", "config"},
            },
        ),
        gems.sanity.shuffle: (
            {"ticket": ticket, "seed": 0},
            {"ticket": set(), "seed": SEED, "model": {"none"}},
        ),
        gems.sanity.randomize: (
            {"ticket": ticket, "model": None, "seed": 0},
            {"ticket": set(), "model": set(), "seed": SEED},
        ),
        gems.sanity.reinitialize: (
            {"ticket": ticket, "model": None, "seed": 0},
            {"ticket": set(), "model": set(), "seed": SEED},
        ),
        gems.sanity.verdict: (
            {"accuracies": {}},
            {"accuracies": set(), "tolerance": {"zero"}},
        ),
    }


def _of_networks():
    zoo = tf_gems.zoo
    small = {"input_shape": (32, 32, 3), "classes": 3}
    regularizer = {"kernel_regularizer": {"none", "function"}}
    common = {"input_shape": set(), "classes": set(), **regularizer}
    common["kernel_initializer"] = set()
    found = {
        getattr(zoo, name): (small, common)
        for name in ("conv4", "lenet_300_100", "resnet20")
    }
    found[zoo.mobilenet_v1] = (
        small,
        {**common, "alpha": {"half"}, "stem": set(), "affine": SWITCH},
    )
    found[zoo.resnet32] = (small, {**common, "width": set()})
    dense = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    found[tf_gems.PruningReport] = (
        {"layer": dense},
        {
            "layer": set(),
            "filters": {"none", "function", "class"},
            "trainable": {"none"},
        },
    )
    found[tf_gems.plan] = (
        {"model": dense, "max_bytes": 1000},
        {
            "model": set(),
            "max_bytes": {"half", "large", "true"},
            "speedup": {"none", "half"},
            "target": set(),
        },
    )
    return found


NETWORK = {
    "filters": {"none", "function"},
    "mask": set(),
    "score_initializer": {"none", "function", "class"},
    "seed": {"none", *SEED},
    "phase": set(),
    "candidates": {"none"},
}


def _of_models():
    gems = tf_gems
    sparse = gems.SparseModel(_dense(), seed=0)
    gems.methods.Magnitude(0.5).find(sparse).apply(sparse)
    layer = keras.layers.Dense(3)
    return {
        gems.GemLayer: (
            {"layer": layer},
            {
                **NETWORK,
                "layer": set(),
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
                "model": set(),
                "x": set(),
                "batches": COUNT,
            },
        ),
        **_of_exports(sparse),
        **_of_runs(),
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
    }
    data = np.ones((2, 2)), None
    return {
        **found,
        exports.export_litert: (
            {"model": sparse, "path": "new.tflite"},
            litert,
        ),
        exports.export_saved_model: (
            {"model": sparse, "directory": "new"},
            {
                "model": set(),
                "directory": {"text"},
                "inputs": inputs,
                "overwrite": SWITCH,
                "tolerance": {"none", "zero", *POSITIVE},
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
                "loss": {"function", "class"},
                "learning_rate": {"none", *POSITIVE},
                "metric": {"function"},
                "seeds": set(),
                "checks": {"empty_list", "dict"},
                "dense": SWITCH,
                "steps_per_execution": {"none", *COUNT},
                "strategy": {"none"},
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


def failures(function, good, hostile):
    """Yields what a function makes of each argument in turn."""
    for name, fine in hostile.items():
        for key, value in HOSTILE.items():
            if key in fine:
                continue
            arguments = {**good, name: value}
            described = (
                f"{function.__module__}.{function.__name__}({name}={key})"
            )
            try:
                found = function(**arguments)
            except (ValueError, TypeError, OSError) as error:
                # Of a file that is not there the system says enough.
                named = getattr(error, "filename", None)
                if "Received: " not in str(error) and not named:
                    yield f"{described}: {type(error).__name__}: {error!s:.90}"
            except Exception as error:
                yield f"{described}: {error!r:.120}"
            else:
                yield f"{described}: accepted, {found!r:.60}"


CASES = arguments()


@pytest.mark.parametrize(
    "function", CASES, ids=lambda f: f"{f.__module__}.{f.__name__}"
)
def test_what_is_absurd_is_refused_by_name(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(failures(function, *CASES[function]))
    assert not found, "\n".join(found)
    assert not list(tmp_path.iterdir())
