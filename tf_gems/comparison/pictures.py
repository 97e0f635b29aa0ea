"""The pictures of a comparison."""

import statistics

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from tf_gems import colors
from tf_gems.files import replacing
from tf_gems.text import printable

NAMES = ("accuracy.png", "layers.png", "cost.png")
_DENSE = {"color": colors.DENSE, "linestyle": "--", "linewidth": 1}


def draw(comparison, directory):
    """Writes the three pictures of `Comparison.draw`."""
    rows = [s for s in comparison.summary() if s["accuracy"][0] is not None]
    dense = [s for s in rows if s["method"] == "dense"]
    rows = [s for s in rows if s["method"] != "dense"]
    styles = _styles(rows)
    accuracy, layers, cost = (directory / name for name in NAMES)
    _accuracy(accuracy, rows, dense, styles)
    _layers(layers, comparison.rows, rows, styles)
    _cost(cost, rows, dense)


def _styles(rows):
    """Returns a style for every method, best first, for all pictures."""
    accuracies = {}
    for row in rows:
        accuracies.setdefault(row["method"], []).append(row["accuracy"][0])
    ranked = sorted(
        accuracies, key=lambda name: (-statistics.fmean(accuracies[name]), name)
    )
    return {
        name: {**style, "markersize": 5, "label": _label(name)}
        for name, style in colors.styles(ranked).items()
    }


def _accuracy(path, found, dense, styles):
    figure, axes = pyplot.subplots(
        1, 2, figsize=(12, 4.8), sharey=True, layout="constrained"
    )
    titles = {
        "accuracy_before": "before fine-tuning",
        "accuracy": "after fine-tuning",
    }
    for panel, (key, title) in zip(axes, titles.items(), strict=True):
        for name, style in styles.items():
            rows = [
                s
                for s in found
                if s["method"] == name and s[key][0] is not None
            ]
            panel.errorbar(
                [100 * (1 - s["sparsity"]) for s in rows],
                [_error(s[key]) for s in rows],
                [100 * (s[key][1] or 0.0) for s in rows],
                linewidth=1,
                capsize=2,
                **style,
            )
        _density_axis(panel, found)
        panel.set(title=title, xlabel="density, % (log)")
    for s in dense:
        axes[1].axhline(_error(s["accuracy"]), label="dense", **_DENSE)
    _accuracy_axis(axes)
    axes[0].set_ylabel("test accuracy, % (log of the error)")
    _finish(figure, axes[1], path)


def _error(pair):
    mean, _ = pair
    return max(100 * (1 - mean), 0.01)


def _accuracy_axis(panels):
    """Scales the axis by the logarithm of the error."""
    panel = panels[0]  # whose axis they share
    panel.set_yscale("log")
    limits = [limit for p in panels for limit in p.dataLim.intervaly]
    low, high = min(limits), max(limits)
    panel.set_ylim(min(high * 1.15, 100), low / 1.15)  # upwards
    ticks, labels = _error_ticks(low, high)
    panel.set_yticks(ticks, labels)
    panel.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    for panel in panels:
        panel.grid(axis="y", alpha=0.3)


def _error_ticks(low, high):
    errors = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90)
    if high < 10 * low:
        errors = (*range(1, 10), *range(10, 100, 10))
    errors = [e for e in errors if low / 1.15 <= e <= high * 1.15]
    return errors, [f"{100 - error:g}" for error in errors]


def _density_axis(panel, found):
    densities = sorted({100 * (1 - s["sparsity"]) for s in found})
    panel.set_xscale("log")
    panel.set_xticks(densities, [f"{d:.3g}" for d in densities])
    panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _layers(path, rows, found, styles):
    """Draws the density by layer, with a dot for each method."""
    sparsities = sorted({s["sparsity"] for s in found})
    paths = list(
        dict.fromkeys(
            layer for row in rows for layer in row["density_of_layers"] or ()
        )
    )
    lane = 0.12 * len(styles) + 0.2  # inches
    figure, axes = pyplot.subplots(
        1,
        len(sparsities),
        figsize=(4 * len(sparsities) + 2.5, min(lane * len(paths), 14) + 1.5),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for panel, sparsity in zip(axes[0], sparsities, strict=True):
        for index, (name, style) in enumerate(styles.items()):
            seeds = [
                row["density_of_layers"]
                for row in rows
                if (row["method"], row["sparsity"]) == (name, sparsity)
                and row["check"] is None
                and row["density_of_layers"]  # none if the search diverged
            ]
            if not seeds:
                continue
            means = [
                100 * statistics.fmean(seed.get(layer, 0) for seed in seeds)
                for layer in paths
            ]
            offset = 0.8 * ((index + 0.5) / len(styles) - 0.5)
            places = [place + offset for place in range(len(paths))]
            panel.plot(means, places, linestyle="none", **style)
        density = 100 * (1 - sparsity)
        panel.axvline(density, **_DENSE, label="all layers")
        panel.set(title=f"density {density:.3g} %", xlabel="density, % (log)")
        panel.set_xscale("symlog", linthresh=density / 10, linscale=0.5)
        panel.set_xlim(-density / 15, 130)
        panel.xaxis.set_major_formatter("{x:g}")
        for place in range(len(paths) - 1):
            panel.axhline(place + 0.5, color=colors.GRAY, linewidth=0.3)
    names = [_label(layer.rsplit("/", 1)[0]) for layer in paths]
    axes[0, 0].set_yticks(range(len(paths)), names)
    axes[0, 0].set_ylim(len(paths) - 0.5, -0.5)
    _finish(figure, axes[0, -1], path)


def _cost(path, found, dense):
    """Draws the cost of each search beside its accuracy."""
    sparsities = sorted({s["sparsity"] for s in found})
    counts = [sum(s["sparsity"] == x for s in found) for x in sparsities]
    figure, axes = pyplot.subplots(
        len(sparsities),
        2,
        figsize=(11, 0.24 * sum(counts) + 1.2 * len(counts)),
        height_ratios=counts,
        squeeze=False,
        layout="constrained",
    )
    for (left, right), sparsity in zip(axes, sparsities, strict=True):
        rows = [s for s in found if s["sparsity"] == sparsity]
        places = range(len(rows))
        errors = [_error(s["accuracy"]) for s in rows]
        left.errorbar(
            errors,
            places,
            xerr=[100 * (s["accuracy"][1] or 0.0) for s in rows],
            fmt="o",
            markersize=5,
            capsize=2,
            color=colors.BLUE,
        )
        for s in dense:
            error = _error(s["accuracy"])
            errors.append(error)
            left.axvline(error, **_DENSE)
            left.annotate(
                "dense",
                (error, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 4),
                textcoords="offset points",
                fontsize=8,
            )
        left.set_xscale("log")
        left.set_xlim(min(max(errors) * 1.3, 100), min(errors) / 1.3)
        left.set_xticks(*_error_ticks(min(errors), max(errors)))
        left.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        left.set_title(f"density {1 - sparsity:.2%}", loc="left")
        left.set_xlabel("test accuracy after fine-tuning, %")
        seconds = [s["processor_seconds_of_search"] for s in rows]
        bars = right.barh(places, seconds, height=0.6, color=colors.SKY)
        right.bar_label(
            bars,
            [
                f"{t:,.1f} s, {s['epochs_of_search']} epochs"
                for t, s in zip(seconds, rows, strict=True)
            ],
            padding=3,
            fontsize=7,
        )
        right.set_xlim(0, 1.45 * max(*seconds, 0.01))
        right.set_xlabel("processor seconds of the search")
        left.set_yticks(places, [_label(s["method"]) for s in rows])
        right.set_yticks(places, [""] * len(rows))
        for panel in (left, right):
            panel.set_ylim(len(rows) - 0.5, -0.5)
            panel.tick_params(labelsize=8)
            panel.grid(axis="both" if panel is left else "x", alpha=0.3)
    _save(figure, path)


def _finish(figure, panel, path):
    handles, labels = panel.get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    last = [x for x in ("dense", "all layers") if x in by_label]
    order = [x for x in by_label if x not in last] + last
    figure.legend(
        [by_label[label] for label in order],
        order,
        loc="outside right upper",
        fontsize=8,
        title="best first",
        title_fontsize=8,
    )
    _save(figure, path)


def _save(figure, path):
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")
    pyplot.close(figure)


def _label(text):
    """Returns a text without control characters and formulas."""
    return printable(text).replace("$", r"\$")
