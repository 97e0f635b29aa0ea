"""The tables and figures of the paper, as cells that can be run.

A cell is a method at a density, with the paper's results. Rows with the
authors' settings are followed by rows with this library's defaults, for which
only the density and the number of epochs are set. Figures have no reported
values if the paper prints no numbers.
"""

import dataclasses
import math
from collections.abc import Callable

import paper

from tf_gems import methods
from tf_gems.validation import check_choice

THEIRS = "Gem-Miner, authors' settings"


@dataclasses.dataclass(frozen=True)
class Scale:
    """A reduced run with fewer and larger steps.

    Mining depends on the sum of the learning rates. If there are fewer steps,
    the learning rate of the scores is increased by the same factor, up to at
    most 1.5. A given penalty is not changed, so its balance with the gradient
    of the task is kept. Edge-popup is an exception: it ranks scores, so its
    penalty only determines how fast scores decay, and is scaled with the run.

    Args:
        epochs: Float in (0, 1], fraction of the paper's epochs.
        fraction: Float in (0, 1], fraction of the training set.
    """

    epochs: float = 1.0
    fraction: float = 1.0

    @property
    def reduced(self):
        """Whether this run is smaller than the paper's."""
        return self.epochs * self.fraction < 1

    def count(self, epochs):
        """Returns a scaled number of epochs."""
        return max(1, round(epochs * self.epochs))

    def rate(self, rate):
        """Returns a scaled learning rate of the scores."""
        return max(rate, min(1.5, rate / (self.epochs * self.fraction)))

    def decay(self, weight, rate):
        """Returns the penalty weight with the same total decay of scores."""
        steps = self.epochs * self.fraction
        return weight * rate / (self.rate(rate) * steps)


@dataclasses.dataclass(frozen=True)
class Row:
    """A method at a density, and how its ticket is fine-tuned.

    Args:
        name: String, name in the rendered table.
        density: Float, percentage of weights that are kept.
        method: Function from `Scale` to a `tf_gems.methods.Method`, or `None`
            for the dense network.
        epochs: Integer, number of fine-tuning epochs.
        rate: Float, learning rate of fine-tuning.
        schedule: String, `"multistep"` or `"cosine"`. Reduced runs use
            `"cosine"` from 0.1.
        batch_size: Integer, batch size of search and fine-tuning.
        before: Float, the paper's accuracy in percent before fine-tuning, or
            `None`.
        after: Float, the paper's accuracy in percent after fine-tuning, or
            `None`.
        check: String, a key of `tf_gems.comparison.cell.CHECKS` that names the
            part of the ticket to randomize, or `None`.
        curve: Boolean, whether to record density and accuracy at every epoch of
            the search.
    """

    name: str
    density: float
    method: Callable | None
    epochs: int = 150
    rate: float = 0.1
    schedule: str = "cosine"
    batch_size: int = 128
    before: float | None = None
    after: float | None = None
    check: str | None = None
    curve: bool = False


def _sparsity(density):
    return round(1 - density / 100, 6)


def _mined(density, epochs=150):
    """Returns Gem-Miner with the defaults of the library."""
    return lambda scale: methods.GemMiner(
        _sparsity(density),
        epochs=scale.count(epochs),
        freeze_period=max(1, scale.count(5)),
    )


def _mined_by(settings, density):
    """Returns Gem-Miner with the authors' settings, a row of `paper`."""
    rate, weight = settings["learning_rate"], settings["regularization"]
    return lambda scale: methods.GemMiner(
        _sparsity(density),
        epochs=scale.count(settings["mining_epochs"]),
        learning_rate=scale.rate(rate),
        freeze_period=max(1, scale.count(settings["freeze_period"])),
        regularization=weight,
        stop_at_target=False,
        saturate_scores=False,
    )


def _popped(density, gradual=False, weight=2.5e-4, distribution="global"):
    """Returns edge-popup. The weight is half of the authors' weight decay."""
    return lambda scale: methods.EdgePopup(
        _sparsity(density),
        epochs=scale.count(150),
        learning_rate=scale.rate(0.1),
        gradual=gradual,
        freeze_period=max(1, scale.count(5)),
        regularization=scale.decay(weight, 0.1),
        distribution=distribution,
    )


def _smart_ratio(density):
    return lambda scale: methods.RandomPruning(
        _sparsity(density), distribution="smart_ratio"
    )


def _rewound(kind, density, epochs=150, **kwargs):
    """Returns IMP or learning rate rewinding, with 19 rounds to 1.44 %."""
    return lambda scale: kind(
        _sparsity(density),
        epochs=scale.count(epochs),
        learning_rate=0.1,
        distribution="global",
        **{k: math.ceil(v * scale.fraction) for k, v in kwargs.items()},
    )


def _gem_miner(network, density, **reported):
    """Returns rows with the authors' settings and with ours."""
    settings = paper.find("cifar10", network, _sparsity(density))
    epochs = settings["finetuning_epochs"]
    return [
        Row(
            THEIRS,
            density,
            _mined_by(settings, density),
            epochs,
            settings["finetuning_learning_rate"],
            "multistep",
            **reported,
        ),
        Row("Gem-Miner, ours", density, _mined(density, epochs), epochs),
    ]


def by_hand(row, penalty):
    """Returns a row with a constant penalty that stops at the target."""
    return dataclasses.replace(
        row,
        name=f"Gem-Miner, penalty {penalty:g} by hand",
        method=lambda scale: methods.get(
            row.method(scale),
            learning_rate=scale.rate(0.1),
            regularization=penalty,
            stop_at_target=True,
            saturate_scores=True,
        ),
        before=None,
        after=None,
    )


def _dense(epochs=150):
    return Row("dense", 100.0, None, epochs, 0.1, "multistep")


def _checked(row, reported):
    """Returns a row, and rows that randomize its ticket."""
    names = (
        ("shuffled", "masks shuffled"),
        ("reinitialized", "weights reinitialized"),
    )
    return [
        row,
        *(
            dataclasses.replace(
                row,
                name=f"{row.name}, {words}",
                check=check,
                before=None,
                after=reported.get(check),
            )
            for check, words in names
        ),
    ]


def _table_2():
    theirs, ours = _gem_miner("resnet20", 3.72, after=83.4)
    prospr = Row(
        "ProsPr",
        5.0,
        lambda scale: methods.ProsPr(0.95),
        200,
        after=82.67,
    )
    return [
        *_checked(theirs, {"shuffled": 78.73, "reinitialized": 78.6}),
        *_checked(ours, {"shuffled": 78.73, "reinitialized": 78.6}),
        *_checked(prospr, {"shuffled": 82.15, "reinitialized": 81.64}),
    ]


def _table_3():
    density = 0.59

    def popup(name, before, after, **kwargs):
        return Row(
            name,
            density,
            _popped(density, **kwargs),
            batch_size=256,
            before=before,
            after=after,
        )

    return [
        popup("edge-popup", 19.57, 24.47, distribution="uniform"),
        popup("edge-popup, global", 22.22, 34.42),
        popup("edge-popup, gradual", 31.56, 63.54, gradual=True),
        popup(
            "edge-popup, gradual, regularized",
            19.67,
            63.72,
            gradual=True,
            weight=3.5e-4,
        ),
        *_gem_miner("resnet20", density, before=45.30, after=66.15),
    ]


def _table_4():
    warm = _rewound(methods.IterativeMagnitude, 1.44, rewind_steps=1000)
    rewound = _rewound(methods.LearningRateRewinding, 1.44)
    return [
        *_gem_miner("resnet20", 1.44, after=77.89),
        Row("IMP, warm", 1.44, warm, after=74.52),
        Row("learning rate rewinding", 1.44, rewound, after=80.21),
    ]


def _figure_3(network):
    densities = [
        density
        for (dataset, name, density), _ in paper.ROWS.items()
        if (dataset, name) == ("cifar10", network)
    ]
    rows = []
    for density in densities:
        rows += _gem_miner(network, density)
        epochs = rows[-1].epochs
        rows += [
            Row(
                "edge-popup", density, _popped(density, distribution="uniform")
            ),
            Row(
                "smart ratio",
                density,
                _smart_ratio(density),
                2 * epochs,
            ),
            Row("IMP", density, _rewound(methods.IterativeMagnitude, density)),
        ]
    return rows


def _figure_5(network):
    """Without a target, the penalty determines the density, except for ours."""
    target = 1.4 if network == "mobilenet_v2" else 1.44
    settings = paper.find("cifar10", network, _sparsity(target))
    epochs, rate = settings["mining_epochs"], settings["learning_rate"]

    def mined(weight):
        return lambda scale: methods.GemMiner(
            0.0,
            epochs=scale.count(epochs),
            learning_rate=scale.rate(rate),
            freeze_period=1,
            regularization=weight,
            stop_at_target=False,
            saturate_scores=False,
        )

    weights = [0.0, settings["regularization"] / 2, settings["regularization"]]
    rows = [Row(f"penalty {w:g}", 100.0, mined(w)) for w in weights]
    rows.append(Row("Gem-Miner, ours", target, _mined(target, epochs)))
    return [dataclasses.replace(row, epochs=0, curve=True) for row in rows]


def _figure_6():
    """Rounds of IMP with 5 epochs (short) or 150 epochs (long)."""
    imp, rewinding = methods.IterativeMagnitude, methods.LearningRateRewinding
    warm = {"rewind_steps": 1000}
    kinds = {
        "IMP, short, warm": (imp, 5, warm),
        "IMP, short, cold": (imp, 5, {}),
        "IMP, long, cold": (imp, 150, {}),
        "IMP, short, not rewound": (rewinding, 5, {}),
        "learning rate rewinding, long": (rewinding, 150, {}),
    }
    return [
        Row(
            name,
            density,
            _rewound(kind, density, epochs, **kwargs),
            after=IMP[name][density],
        )
        for name, (kind, epochs, kwargs) in kinds.items()
        for density in IMP[name]
    ]


def _figure_7():
    rows = []
    for density in (3.72, 1.44, 0.59):
        rows += _gem_miner("resnet20", density)
    return [dataclasses.replace(row, epochs=0) for row in rows]


_PARTS = {
    "table2": _table_2,
    "table3": _table_3,
    "table4": _table_4,
    "figure3": _figure_3,
    "figure5": _figure_5,
    "figure6": _figure_6,
    "figure7": _figure_7,
}
_OF_NETWORKS = ("figure3", "figure5")


def rows(part, network="resnet20"):
    """Returns the rows of a table or figure, starting with the dense network.

    Args:
        part: String, `"table2"`, `"table3"`, `"table4"`, `"figure3"`,
            `"figure5"`, `"figure6"` or `"figure7"`.
        network: String, a name in `paper`. Only `"figure3"` and `"figure5"`
            support networks other than ResNet-20.

    Raises:
        ValueError: If the paper has no such table or figure.
    """
    make = _PARTS[check_choice(part, "part", _PARTS)]
    if part in _OF_NETWORKS:
        known = [n for dataset, n, _ in paper.ROWS if dataset == "cifar10"]
        return [_dense(), *make(check_choice(network, "network", known))]
    check_choice(network, "network", ("resnet20",))
    return [_dense(), *make()]


# Accuracy of ResNet-20 by density, in percent, read from a plot in the authors'
# repository. The error is within 0.4, or within 1 where markers overlap.
IMP = {
    "IMP, short, warm": {5.5: 86.0, 1.44: 77.9, 0.59: 64.0, 0.155: 39.5},
    "IMP, short, cold": {5.5: 85.1, 1.44: 77.3, 0.59: 61.7, 0.155: 36.7},
    "IMP, long, cold": {5.5: 82.9, 1.44: 69.4, 0.59: 57.0, 0.155: 33.7},
    "IMP, short, not rewound": {5.5: 87.1, 1.44: 78.5, 0.59: 64.5, 0.155: 34.7},
    "learning rate rewinding, long": {
        5.5: 88.9,
        1.44: 79.8,
        0.59: 65.7,
        0.155: 42.0,
    },
}

# Density by layer of ResNet-20 in percent, as published by the authors for
# figure 7: Gem-Miner and IMP, in the order of the layers.
LAYERS = {
    (3.72, "Gem-Miner"): """41.44 16.97 17.14 17.80 15.54 15.15 14.28 10.57
        7.79 7.31 6.80 7.14 5.37 3.33 1.85 1.72 1.71 0.94 1.77 54.69""",
    (1.44, "Gem-Miner"): """34.49 7.16 8.25 8.68 7.16 6.94 6.38 4.10 3.21 3.15
        2.71 2.27 1.83 0.68 0.63 0.37 0.66 0.33 0.70 25.94""",
    (0.59, "Gem-Miner"): """25.69 3.39 4.47 4.60 3.47 3.73 2.60 1.54 1.23 1.76
        1.12 1.12 0.42 0.22 0.11 0.12 0.08 0.07 0.09 23.91""",
    (1.44, "IMP"): """44.91 10.59 9.85 8.72 7.77 7.90 7.20 6.18 3.26 3.34 2.40
        2.02 1.71 1.18 0.46 0.34 0.35 0.31 0.22 26.88""",
    (0.59, "IMP"): """33.33 5.12 5.51 3.86 3.13 3.17 3.43 2.56 1.34 1.37 0.97
        0.60 0.64 0.37 0.11 0.05 0.04 0.07 0.06 18.28""",
}
LAYERS = {key: tuple(map(float, v.split())) for key, v in LAYERS.items()}
