"""Tests that every public function refuses invalid arguments."""

import importlib
import inspect
import pkgutil

import keras
import numpy as np
import pytest
from argument_kinds import COUNT
from argument_kinds import HOSTILE
from argument_kinds import METHOD
from argument_kinds import NUMBER
from argument_kinds import OPTIONAL
from argument_kinds import PATH
from argument_kinds import PENALTY
from argument_kinds import POSITIVE
from argument_kinds import REWIRING
from argument_kinds import ROUNDS
from argument_kinds import SALIENCY
from argument_kinds import SEED
from argument_kinds import SPARSITY
from argument_kinds import SWITCH
from argument_kinds import TRAINED
from model_arguments import of_models

import tf_gems


def module_names():
    names = ["tf_gems"]
    for found in pkgutil.iter_modules(tf_gems.__path__):
        if not found.name.startswith("_"):
            names.append(f"tf_gems.{found.name}")
    return names


def public():
    """Yields the name and the object of every public class and function."""
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


def arguments():
    """Returns a dict from callables to valid arguments and valid kinds."""
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
        methods.ACDCCallback: (
            s,
            {
                **METHOD,
                "target_sparsity": SPARSITY,
                "epochs": OPTIONAL | COUNT,
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
        methods.ACDC: (s, TRAINED),
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
        **of_models(),
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
        gems.sanity.SanityReport: (
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


def failures(function, good, hostile):
    """Yields a message for each invalid argument that is not refused."""
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
                # If a file is missing, the error of the system is sufficient.
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
def test_invalid_arguments_are_refused_by_name(function, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(failures(function, *CASES[function]))
    assert not found, "\n".join(found)
    assert not list(tmp_path.iterdir())


# Objects that the library creates for users to read, and functions that are
# called too often to check their arguments or that never raise.
LEFT_OUT = {
    *("Comparison", "DeploymentReport", "ExportReport", "Plan", "ImageData"),
    *("CompactionReport", "ReadinessReport", "RewriteReport", "Contents"),
    *("TicketSummary", "straight_through", "sparse_operators"),
    *("EthosUReport", "VelaEstimate"),
}


def test_every_public_callable_is_tested():
    for name, value in public():
        if name.split(".")[-1] not in LEFT_OUT:
            assert value in CASES, name
