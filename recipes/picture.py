"""The picture and the table of a run."""

import csv

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

_BLUE, _ORANGE, _GREY, _GREEN = "#1565c0", "#ef6c00", "#757575", "#2e7d32"


def draw(directory, results):
    """Draws accuracy and density by epoch, and density by layer.

    Args:
        directory: Path of the run, which holds a CSV file for each stage.
        results: Dict, the contents of `results.json`.
    """
    settings, stages = results["settings"], results["stages"]
    figure, (left, right) = pyplot.subplots(
        1, 2, figsize=(12, 4.5), width_ratios=(3, 2), layout="constrained"
    )
    mine = _read(directory / "mine.csv")
    tune = _read(directory / "finetune.csv")
    mined = settings["mining_epochs"]

    left.plot(
        _epochs(mine),
        [100 * row["val_accuracy"] for row in mine],
        color=_BLUE,
        label="mining (weights fixed)",
    )
    left.plot(
        [mined, *(mined + e for e in _epochs(tune))],
        [100 * stages["mine"]["accuracy"]]
        + [100 * row["val_accuracy"] for row in tune],
        color=_GREEN,
        label="fine-tuning the ticket",
    )
    for name, color in (("dense", _GREY), ("random", _ORANGE)):
        rows = _read(directory / f"{name}.csv")
        left.plot(
            _epochs(rows),
            [100 * row["val_accuracy"] for row in rows],
            color=color,
            linewidth=1,
            linestyle="--",
            label={"dense": "dense", "random": "random ticket"}[name],
        )
    left.axvline(mined, color=_GREY, linewidth=0.5)
    left.set(xlabel="epoch", ylabel="test accuracy, %", ylim=(0, 100))
    left.set_title(
        f"{settings['network']} on {settings['dataset']}, "
        f"sparsity {settings['target_sparsity']:.2%}"
    )
    density = left.twinx()
    for key, style in (("alive_density", "-"), ("density", ":")):
        density.plot(
            _epochs(mine),
            [100 * row[key] for row in mine],
            color="#8e24aa",
            linewidth=1,
            linestyle=style,
            label={"alive_density": "alive", "density": "kept by rounding"}[
                key
            ],
        )
    density.set(ylabel="density, % (log)", yscale="log")
    left.legend(
        [*left.get_legend_handles_labels()[0], *density.get_lines()],
        [
            *left.get_legend_handles_labels()[1],
            *(f"density: {line.get_label()}" for line in density.get_lines()),
        ],
        loc="lower right",
        fontsize=8,
    )

    layers = stages["mine"]["layers"]
    names = [layer["path"].rsplit("/", 1)[0] for layer in layers]
    right.barh(names, [100 * layer["density"] for layer in layers], color=_BLUE)
    right.invert_yaxis()
    right.set(xlabel="density of the ticket, % (log)", xscale="log")
    right.tick_params(axis="y", labelsize=7)
    right.set_title(
        f"{stages['mine']['kept']:,} of {stages['mine']['size']:,} weights"
    )
    figure.savefig(directory / "report.png", dpi=120)
    pyplot.close(figure)


def render(directory, results):
    """Returns the table of a run for people.

    Args:
        directory: Path of the run.
        results: Dict, the contents of `results.json`.
    """
    settings, stages = results["settings"], results["stages"]
    mine = stages["mine"]
    accuracies = {
        "dense network": (stages["dense"], settings_epochs(settings)),
        "random ticket": (stages["random"], settings_epochs(settings)),
        "rare gem, weights untrained": (mine, settings["mining_epochs"]),
        "rare gem, fine-tuned": (
            stages["finetune"],
            settings_epochs(settings),
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


def settings_epochs(settings):
    """Returns the training budget of a run, in epochs."""
    return settings["mining_epochs"] + settings["finetuning_epochs"]


def _read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [
            {key: float(value) for key, value in row.items()}
            for row in csv.DictReader(file)
        ]


def _epochs(rows):
    return [row["epoch"] + 1 for row in rows]
