"""The pictures of a comparison."""

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot

from tf_gems.files import replacing
from tf_gems.text import printable

NAMES = ("accuracy.png", "layers.png", "cost.png")
_MARKERS = "osD^vP*Xhd<>p8"
_DENSE = {"color": "#757575", "linestyle": "--", "linewidth": 1}


def draw(comparison, directory):
    """Writes the three pictures of `Comparison.draw`."""
    summaries = [
        s for s in comparison.summary() if s["accuracy"][0] is not None
    ]
    dense = [s for s in summaries if s["method"] == "dense"]
    summaries = [s for s in summaries if s["method"] != "dense"]
    styles = _styles(summaries)
    accuracy, layers, cost = (directory / name for name in NAMES)
    _accuracy(accuracy, summaries, dense, styles)
    _layers(layers, comparison.rows, summaries, styles)
    _cost(cost, summaries, styles)


def _styles(summaries):
    """A color and a marker for every method, the same in all pictures."""
    names = list(dict.fromkeys(s["method"] for s in summaries))
    colors = pyplot.get_cmap("tab20")
    return {
        name: {
            "color": colors((2 * i) % 20 + (i >= 10)),
            "marker": _MARKERS[i % len(_MARKERS)],
            "markersize": 5,
            "label": _label(name),
        }
        for i, name in enumerate(sorted(names))
    }


def _accuracy(path, summaries, dense, styles):
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
                for s in summaries
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
        _density_axis(panel, summaries)
        panel.set(title=title, xlabel="density, % (log)")
    for s in dense:
        axes[1].axhline(_error(s["accuracy"]), **_DENSE)
        axes[1].annotate(
            "dense",
            (1, _error(s["accuracy"])),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            ha="right",
            va="bottom",
        )
    _accuracy_axis(axes)
    axes[0].set_ylabel("test accuracy, %")
    _finish(figure, axes[1], path)


def _error(pair):
    mean, _ = pair
    return max(100 * (1 - mean), 0.01)


def _accuracy_axis(panels):
    """Accuracies by the logarithm of their errors: 98 is far from 97."""
    panel = panels[0]  # whose axis they share
    panel.set_yscale("log")
    limits = [limit for p in panels for limit in p.dataLim.intervaly]
    low, high = min(limits), max(limits)
    panel.set_ylim(min(high * 1.15, 100), low / 1.15)  # upwards
    errors = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90)
    if high < 10 * low:
        errors = (*range(1, 10), *range(10, 100, 10))
    errors = [e for e in errors if low / 1.15 <= e <= high * 1.15]
    panel.set_yticks(errors, [f"{100 - error:g}" for error in errors])
    panel.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    panel.grid(axis="y", alpha=0.3)


def _density_axis(panel, summaries):
    densities = sorted({100 * (1 - s["sparsity"]) for s in summaries})
    panel.set_xscale("log")
    panel.set_xticks(densities, [f"{d:.3g}" for d in densities])
    panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _layers(path, rows, summaries, styles):
    sparsities = sorted({s["sparsity"] for s in summaries})
    figure, axes = pyplot.subplots(
        1,
        len(sparsities),
        figsize=(4.5 * len(sparsities) + 2, 4.8),
        squeeze=False,
        layout="constrained",
    )
    for panel, sparsity in zip(axes[0], sparsities, strict=True):
        for name, style in styles.items():
            seeds = [
                row["density_of_layers"]
                for row in rows
                if (row["method"], row["sparsity"]) == (name, sparsity)
                and row["check"] is None
                and row["density_of_layers"]  # none if the search diverged
            ]
            if not seeds:
                continue
            paths = list(seeds[0])
            means = [
                100 * sum(layers[path] for layers in seeds) / len(seeds)
                for path in paths
            ]
            names = [_label(path.rsplit("/", 1)[0]) for path in paths]
            panel.plot(names, means, linewidth=1, **style)
        panel.set(title=f"density {1 - sparsity:.2%}")
        lowest = 100 * (1 - sparsity) / 10
        panel.set_yscale("symlog", linthresh=lowest)
        panel.set_ylim(0, 100)
        panel.yaxis.set_major_formatter("{x:g}")
        panel.tick_params(axis="x", rotation=90, labelsize=7)
    axes[0, 0].set_ylabel("density of the layer, % (log above the first tick)")
    _finish(figure, axes[0, -1], path)


def _cost(path, summaries, styles):
    sparsities = sorted({s["sparsity"] for s in summaries})
    figure, axes = pyplot.subplots(
        len(sparsities),
        2,
        figsize=(11, 3.2 * len(sparsities) + 1),
        squeeze=False,
        sharey="row",
        layout="constrained",
    )
    keys = {
        "epochs_of_search": "epochs of the search",
        "processor_seconds_of_search": "processor seconds of the search (log)",
    }
    for panels, sparsity in zip(axes, sparsities, strict=True):
        for panel, (key, label) in zip(panels, keys.items(), strict=True):
            for s in summaries:
                if s["sparsity"] == sparsity:
                    style = dict(styles[s["method"]], linestyle="none")
                    panel.plot(s[key], _error(s["accuracy"]), **style)
            panel.set(xlabel=label, title=f"density {1 - sparsity:.2%}")
            panel.grid(axis="x", alpha=0.3)
        _accuracy_axis(panels)
        panels[0].set_ylabel("test accuracy after\nfine-tuning, %")
        panels[1].set_xscale("log")
        panels[1].xaxis.set_major_formatter("{x:g}")
        panels[1].xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    _finish(figure, axes[0, -1], path)


def _finish(figure, panel, path):
    handles, labels = panel.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique, loc="outside right upper", fontsize=8
    )
    with replacing(path) as file:
        figure.savefig(file, dpi=110, format="png")
    pyplot.close(figure)


def _label(text):
    """A text as it is: without control characters, and no formula."""
    return printable(text).replace("$", r"\$")
