"""The plot and the table of a run."""

import csv

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from tf_gems import colors
from tf_gems.files import replacing
from tf_gems.tables import Table

_SERIES = {"linewidth": 1.2}


def draw(directory, results):
    """Plots accuracy and density by epoch, and density by layer.

    Args:
        directory: Path of the run, with a CSV file for each stage.
        results: Dict, the contents of `results.json`.
    """
    settings, mine = results["settings"], results["stages"]["mine"]
    figure = pyplot.figure(figsize=(12, 5.4), layout="constrained")
    accuracy, layers, density = figure.subplot_mosaic(
        [["accuracy", "layers"], ["density", "layers"]],
        width_ratios=(3, 2),
        height_ratios=(3, 2),
    ).values()
    density.sharex(accuracy)
    accuracy.set_title(
        f"{settings['network']} on {settings['dataset']}, "
        f"sparsity {settings['target_sparsity']:.2%}"
    )
    _draw_accuracy(accuracy, directory, settings, mine["accuracy"])
    _draw_density(density, directory, settings)
    layers.set_title(f"{mine['kept']:,} of {mine['size']:,} weights")
    _draw_layers(layers, mine)
    for panel in (accuracy, density):
        panel.axvline(
            settings["mining_epochs"], color=colors.GRAY, linewidth=0.5
        )
        panel.grid(axis="y", alpha=0.3)
        panel.legend(
            loc="center left",
            bbox_to_anchor=(1, 0.5),
            fontsize=8,
            frameon=False,
        )
    accuracy.tick_params(labelbottom=False)
    with replacing(directory / "report.png") as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def _draw_accuracy(axes, directory, settings, accuracy_before_finetuning):
    """Plots accuracies in the order of the legend, with the best one on top."""
    mine = read(directory / "mine.csv")
    tune = read(directory / "finetune.csv")
    mined = settings["mining_epochs"]

    def others(name, label, color):
        rows = read(directory / f"{name}.csv")
        accuracies = _percent(rows, "val_accuracy")
        style = {"linestyle": "--", "label": label, "color": color}
        axes.plot(_epochs(rows), accuracies, **style, **_SERIES)

    others("dense", "dense", colors.DENSE)
    axes.plot(
        [mined, *(mined + epoch for epoch in _epochs(tune))],
        [100 * accuracy_before_finetuning, *_percent(tune, "val_accuracy")],
        color=colors.FINETUNED,
        label="fine-tuning",
    )
    axes.plot(
        _epochs(mine),
        _percent(mine, "val_accuracy"),
        color=colors.MINED,
        label="mining",
    )
    others("random", "random ticket", colors.RANDOM)
    low = min(min(line.get_ydata()) for line in axes.lines)
    high = max(max(line.get_ydata()) for line in axes.lines)
    margin = 0.06 * (high - low)
    axes.set_ylim(max(low - margin, 0), min(high + margin, 100.5))
    axes.set_ylabel("test accuracy, %")


def _draw_density(axes, directory, settings):
    mine = read(directory / "mine.csv")
    for key, style, label in (
        ("alive_density", "-", "not frozen"),
        ("density", ":", "kept by rounding"),
    ):
        axes.plot(
            _epochs(mine),
            _percent(mine, key),
            color=colors.MINED,
            linestyle=style,
            label=label,
        )
    axes.set(xlabel="epoch", ylabel="density, % (log)", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def _draw_layers(axes, mine):
    """Plots a dot per layer, since bars have no length on a log scale."""
    layers = mine["layers"]
    names = [layer["path"].rsplit("/", 1)[0] for layer in layers]
    # A layer without weights has no place on a log scale.
    densities = [100 * max(layer["density"], 1e-5) for layer in layers]
    places = range(len(layers))
    axes.plot(densities, places, "o", color=colors.MINED, markersize=6)
    for density, place in zip(densities, places, strict=True):
        axes.annotate(
            f"{density:.3g} %",
            (density, place),
            (6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    total = 100 * mine["kept"] / mine["size"]
    axes.axvline(total, color=colors.GRAY, linestyle="--", linewidth=1)
    axes.annotate(
        f"all layers: {total:.3g} %",
        (total, 1),
        (3, -10),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        fontsize=7,
        color=colors.GRAY,
    )
    axes.set_yticks(places, names)
    axes.set_ylim(len(layers) - 0.5, -0.8)
    axes.set(xlabel="density of the ticket, % (log)", xscale="log")
    axes.set_xlim(min(densities) / 2, 300)
    axes.set_xticks(
        [x for x in (0.01, 0.1, 1, 10, 100) if x > min(densities) / 2]
    )
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", alpha=0.3)


def _percent(rows, key):
    return [100 * row[key] for row in rows]


def render(directory, results):
    """Returns the table of a run as text.

    Args:
        directory: Path of the run.
        results: Dict, the contents of `results.json`.
    """
    settings, stages = results["settings"], results["stages"]
    mine = stages["mine"]
    total = settings["mining_epochs"] + settings["finetuning_epochs"]
    accuracies = {
        "dense network": (stages["dense"], total),
        "random ticket": (stages["random"], total),
        "rare gem, before fine-tuning": (mine, settings["mining_epochs"]),
        "rare gem, fine-tuned": (
            stages["finetune"],
            total,
        ),
        "  as sparse TFLite": (
            stages["export"],
            total,
        ),
    }
    lines = [
        "",
        f"{settings['network']} on {settings['dataset']}: "
        f"{mine['kept']:,} of {mine['size']:,} weights kept "
        f"({mine['kept'] / mine['size']:.2%})",
        str(
            Table(
                ["network", ">test accuracy", ">epochs", ">seconds"],
                [
                    [
                        name,
                        f"{stage['accuracy']:.2%}",
                        epochs,
                        f"{stage['seconds']:.0f}",
                    ]
                    for name, (stage, epochs) in accuracies.items()
                ],
            )
        ),
    ]
    lines += ["", (directory / "export.txt").read_text("utf-8").rstrip()]
    lines += ["", f"ticket   {(directory / 'ticket.gem').stat().st_size} bytes"]
    lines += [f"picture  {directory / 'report.png'}"]
    return "\n".join(lines)


def read(path):
    """Returns the rows of a stage's CSV file, a dict for each epoch."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [
            {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]
    # The last epoch of a killed run may be logged twice.
    return list({row["epoch"]: row for row in rows}.values())


def _epochs(rows):
    return [row["epoch"] + 1 for row in rows]
