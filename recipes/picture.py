"""The picture and the table of a run."""

import csv

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from tf_gems.files import replacing

_BLUE, _ORANGE, _GREY, _GREEN = "#1565c0", "#ef6c00", "#757575", "#2e7d32"
_PURPLE = "#8e24aa"


def draw(directory, results):
    """Draws accuracy and density by epoch, and density by layer.

    Args:
        directory: Path of the run, which holds a CSV file for each stage.
        results: Dict, the contents of `results.json`.
    """
    settings, mine = results["settings"], results["stages"]["mine"]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(12, 4.5), width_ratios=(3, 2), layout="constrained"
    )
    left.set_title(
        f"{settings['network']} on {settings['dataset']}, "
        f"sparsity {settings['target_sparsity']:.2%}"
    )
    _draw_epochs(left, directory, settings, mine["accuracy"])
    right.set_title(f"{mine['kept']:,} of {mine['size']:,} weights")
    _draw_layers(right, mine["layers"])
    with replacing(directory / "report.png") as file:
        figure.savefig(file, dpi=120, format="png")
    pyplot.close(figure)


def _draw_epochs(axes, directory, settings, accuracy_before_finetuning):
    def percent(rows, key):
        return [100 * row[key] for row in rows]

    mine = read(directory / "mine.csv")
    tune = read(directory / "finetune.csv")
    mined = settings["mining_epochs"]
    lines = axes.plot(
        _epochs(mine),
        percent(mine, "val_accuracy"),
        color=_BLUE,
        label="mining (weights fixed)",
    )
    lines += axes.plot(
        [mined, *(mined + epoch for epoch in _epochs(tune))],
        [100 * accuracy_before_finetuning, *percent(tune, "val_accuracy")],
        color=_GREEN,
        label="fine-tuning the ticket",
    )
    for name, color in (("dense", _GREY), ("random", _ORANGE)):
        rows = read(directory / f"{name}.csv")
        lines += axes.plot(
            _epochs(rows),
            percent(rows, "val_accuracy"),
            color=color,
            linewidth=1,
            linestyle="--",
            label={"dense": "dense", "random": "random ticket"}[name],
        )
    axes.axvline(mined, color=_GREY, linewidth=0.5)
    axes.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
    density = axes.twinx()
    for key, style, label in (
        ("alive_density", "-", "density: alive"),
        ("density", ":", "density: kept by rounding"),
    ):
        lines += density.plot(
            _epochs(mine),
            percent(mine, key),
            color=_PURPLE,
            linewidth=1,
            linestyle=style,
            label=label,
        )
    density.set(ylabel="density, % (log)", yscale="log")
    density.yaxis.set_major_formatter("{x:g}")
    density.yaxis.set_minor_formatter("{x:g}")
    density.tick_params(axis="y", which="minor", labelsize=6)
    axes.legend(handles=lines, loc="lower right", fontsize=8)


def _draw_layers(axes, layers):
    names = [layer["path"].rsplit("/", 1)[0] for layer in layers]
    densities = [100 * layer["density"] for layer in layers]
    bars = axes.barh(names, densities, color=_BLUE)
    labels = [f"{density:.3g} %" for density in densities]
    axes.bar_label(bars, labels, padding=3, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="density of the ticket, % (log)", xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.tick_params(axis="y", labelsize=7)


def render(directory, results):
    """Returns the table of a run for people.

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
        "rare gem, weights untrained": (mine, settings["mining_epochs"]),
        "rare gem, fine-tuned": (
            stages["finetune"],
            total,
        ),
        "  the same, as sparse TFLite": (
            stages["export"],
            total,
        ),
    }
    lines = [
        "",
        f"{settings['network']} on {settings['dataset']}: "
        f"{mine['kept']:,} of {mine['size']:,} weights kept "
        f"({mine['kept'] / mine['size']:.2%})",
        f"{'':<30}{'test accuracy':>14}{'epochs':>8}{'seconds':>9}",
    ]
    lines += [
        f"{name:<30}{stage['accuracy']:>14.2%}{epochs:>8}"
        f"{stage['seconds']:>9.0f}"
        for name, (stage, epochs) in accuracies.items()
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
    # A run that was killed may log its last epoch again.
    return list({row["epoch"]: row for row in rows}.values())


def _epochs(rows):
    return [row["epoch"] + 1 for row in rows]
