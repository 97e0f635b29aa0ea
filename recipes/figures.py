"""Renders the tables and figures of the paper from finished cells."""

import csv

import keras
import numpy as np
import tables

from tf_gems import colors
from tf_gems.files import replacing
from tf_gems.tables import Table

_COLUMNS = ("epoch", "density", "accuracy")


class Curve(keras.callbacks.Callback):
    """Records the density and the test accuracy after every epoch.

    Args:
        path: Path of the CSV file. An epoch that was repeated after an
            interruption has two rows, of which the last one counts.
        evaluate: Function that takes the model and returns its accuracy.
    """

    def __init__(self, path, evaluate):
        super().__init__()
        self.path = path
        self.evaluate = evaluate

    def on_epoch_end(self, epoch, logs=None):
        row = epoch, logs["density"], self.evaluate(self.model)
        with open(self.path, "a", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


def read_curve(path):
    """Returns the values of a `Curve`, as a dict of lists."""
    with open(path, encoding="utf-8") as file:
        rows = {int(row[0]): row for row in csv.reader(file)}
    columns = zip(*(rows[epoch] for epoch in sorted(rows)), strict=True)
    return {
        name: [float(value) for value in column]
        for name, column in zip(_COLUMNS, columns, strict=True)
    }


def render(cells, scale):
    """Returns a table of the results and the paper's numbers."""
    rows = dict.fromkeys((cell["name"], cell["density"]) for cell in cells)
    columns = ["method", ">kept", ">before", ">paper", ">after", ">paper"]
    lines = []
    for name, density in rows:
        same = [
            c for c in cells if (c["name"], c["density"]) == (name, density)
        ]
        first = same[0]
        if first.get("curve"):
            density = 100 * first["curve"]["density"][-1]
        epochs = (
            f"{first.get('epochs_of_search')} + "
            f"{first.get('epochs_of_finetuning')}"
        )
        lines.append(
            [
                name,
                f"{density:.3g}%",
                _spread([c["before"] for c in same]),
                _reported(first["paper_before"]),
                _spread([c["after"] for c in same]),
                _reported(first["paper_after"]),
                "output is constant" if "failure" in first else epochs,
            ]
        )
    text = str(Table([*columns, "epochs"], lines))
    if scale.reduced:
        text += (
            f"\nREDUCED: {scale.epochs:g} of the paper's epochs on "
            f"{scale.fraction:g} of the training set.\nThe paper's numbers are "
            "of full runs."
        )
    return text


def draw(part, cells, path):
    """Plots a figure from its cells.

    Args:
        part: String, `"figure3"`, `"figure5"`, `"figure6"` or `"figure7"`.
        cells: List of records. See `reproduce`.
        path: Path of the image file.
    """
    import matplotlib.pyplot as plt

    cells = [cell for cell in cells if "failure" not in cell]
    drawing = {"figure5": _curves, "figure7": _layers}.get(part, _by_density)
    figure = drawing(plt, cells)
    figure.tight_layout()
    with replacing(path) as file:
        figure.savefig(file, dpi=120, format="png")
    plt.close(figure)


def _by_density(plt, cells):
    """Plots accuracy by density. Dashed lines are the paper's values."""
    figure, axis = plt.subplots(figsize=(8, 5))
    styles = colors.styles(list(dict.fromkeys(c["name"] for c in cells)))
    for name, style in styles.items():
        own = [cell for cell in cells if cell["name"] == name]
        densities = sorted({cell["density"] for cell in own})
        values = [
            100 * np.array([c["after"] for c in own if c["density"] == density])
            for density in densities
        ]
        if densities == [100.0]:
            axis.axhline(
                np.mean(values), color=colors.DENSE, ls=":", label=name
            )
            continue
        axis.errorbar(
            densities,
            [np.mean(v) for v in values],
            [np.std(v) for v in values],
            label=name,
            **style,
        )
        paper = {c["density"]: c["paper_after"] for c in own}
        known = sorted(d for d, value in paper.items() if value is not None)
        if known:
            values = [paper[density] for density in known]
            axis.plot(known, values, "--", color=style["color"], alpha=0.5)
    axis.set(
        xscale="log",
        xlabel="weights kept, %",
        ylabel="accuracy, % (- -: paper)",
    )
    axis.legend(fontsize=8)
    return figure


def _curves(plt, cells):
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
    for label, cell, style in _styled([c for c in cells if c["curve"]]):
        for axis, values in ((left, "density"), (right, "accuracy")):
            curve = 100 * np.array(cell["curve"][values])
            axis.plot(curve, label=label, color=style["color"])
    left.set(
        xlabel="epoch of mining",
        ylabel="weights that round to one, %",
        yscale="log",
    )
    right.set(xlabel="epoch of mining", ylabel="test accuracy, %")
    left.legend(fontsize=8)
    return figure


def _layers(plt, cells):
    """Plots density by layer and the densities that the authors published."""
    densities = list(dict.fromkeys(c["density"] for c in cells if c["layers"]))
    figure, axes = plt.subplots(
        1, len(densities), figsize=(5 * len(densities), 4), squeeze=False
    )
    for axis, density in zip(axes[0], densities, strict=True):
        own = [c for c in cells if c["density"] == density and c["layers"]]
        for label, cell, style in _styled(own):
            layers = 100 * np.array(cell["layers"])
            axis.plot(layers, label=label, linestyle="none", **style)
        for (of, name), layers in tables.LAYERS.items():
            if of == density:
                style = "k:" if name == "IMP" else "k--"
                axis.plot(layers, style, alpha=0.6, label=f"{name}, published")
        axis.set_xticks(range(0, len(layers), 3))
        axis.set(
            title=f"{density:g} % kept",
            xlabel="layer",
            ylabel="density, %",
            yscale="log",
        )
        axis.legend(fontsize=7)
    return figure


def _styled(cells):
    """Yields the label, the cell and the style of each cell."""
    labels = [f"{cell['name']}, seed {cell['seed']}" for cell in cells]
    styles = colors.styles(list(dict.fromkeys(labels)))
    return [
        (label, cell, styles[label])
        for label, cell in zip(labels, cells, strict=True)
    ]


def _spread(values):
    if None in values:
        return "" if any(values) else "-"
    values = 100 * np.array(values)
    spread = f" ±{values.std():.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{spread}"


def _reported(value):
    return "" if value is None else f"{value:.2f}"
