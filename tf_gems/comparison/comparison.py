"""The results of a comparison: rows, a table, files and pictures."""

import csv
import dataclasses
import io
import json
import statistics
from pathlib import Path

from tf_gems import sanity
from tf_gems.files import lock
from tf_gems.files import write_text
from tf_gems.tables import Report
from tf_gems.tables import Table
from tf_gems.targets import check_directory
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.text import printable

RESULTS = ("results.json", "results.csv")


@dataclasses.dataclass(frozen=True)
class Comparison(Report):
    """The results of `tf_gems.compare`.

    Args:
        rows: List of dicts, one for each cell.
        settings: Dict of JSON values, the settings that all cells share.
        provenance: Dict of JSON values: date, machine, versions.
    """

    rows: list
    settings: dict
    provenance: dict

    def summary(self):
        """Returns a dict for each method and sparsity, best first.

        Accuracies are pairs of the mean and the sample standard deviation over
        the seeds. With a single seed, the deviation is `None`. Costs are
        means. `diverged` is the number of seeds whose training diverged. They
        are not part of the accuracy, which is `(None, None)` if all of them
        diverged. `checks` and `verdict` are present if tickets were checked,
        see `tf_gems.sanity.SanityReport`.
        """
        groups = {}
        for row in self.rows:
            if row["check"] is None:
                place = row["sparsity"], row["method"]
                groups.setdefault(place, []).append(row)
        found = [self._summary_of(*place, g) for place, g in groups.items()]
        return sorted(found, key=_rank)

    def _summary_of(self, sparsity, method, rows):
        def mean(name):
            return statistics.fmean(row.get(name, 0.0) for row in rows)

        def mean_and_spread(name):
            values = [row[name] for row in rows if row[name] is not None]
            if not values:
                return None, None
            spread = statistics.stdev(values) if len(values) > 1 else None
            return statistics.fmean(values), spread

        found = {
            "method": method,
            "sparsity": sparsity,
            "seeds": len(rows),
            "diverged": sum("diverged" in row for row in rows),
            "accuracy_before": mean_and_spread("accuracy_before"),
            "accuracy": mean_and_spread("accuracy"),
            "epochs_of_search": rows[0]["epochs_of_search"],
            "seconds_of_search": mean("seconds_of_search"),
            "processor_seconds_of_search": mean("processor_seconds_of_search"),
            "seconds": mean("seconds_of_search")
            + mean("seconds_of_finetuning"),
        }
        accuracies = self._by_check(sparsity, method)
        if len(accuracies) > 1 and "ticket" in accuracies:
            found["checks"] = accuracies
            report = sanity.SanityReport(accuracies)
            found["verdict"] = {"mask": report.mask, "weights": report.weights}
        return found

    def _by_check(self, sparsity, method):
        found = {}
        for row in self.rows:
            here = (row["sparsity"], row["method"]) == (sparsity, method)
            if here and row["accuracy"] is not None:
                check = row["check"] or "ticket"
                found.setdefault(check, []).append(row["accuracy"])
        return found

    def to_dict(self):
        """Returns the comparison as JSON-serializable values."""
        return {
            "settings": self.settings,
            "provenance": self.provenance,
            "summary": self.summary(),
            "rows": self.rows,
        }

    def save(self, directory):
        """Writes `results.json` and `results.csv`.

        Args:
            directory: Path, created if it does not exist.

        Raises:
            FileExistsError: If it has files of these names of another program.
            ValueError: See `tf_gems.targets.check_directory`.
        """
        text = json.dumps(self.to_dict(), indent=1)
        names = {name: None for row in self.rows for name in row}
        names.pop("density_of_layers", None)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(self.rows)
        known = refuse_others(directory)
        # Processes that share a comparison all save it.
        with (
            lock(directory, wait=True),
            claiming(directory, RESULTS, known),
        ):
            for name, content in zip(
                RESULTS, (text, table.getvalue()), strict=True
            ):
                write_text(Path(directory, name), content)

    @classmethod
    def load(cls, path):
        """Reads `results.json`.

        Args:
            path: Path of the file.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file is not a comparison.
        """
        text = Path(path).read_bytes()
        try:
            found = json.loads(text)
            loaded = cls(found["rows"], found["settings"], found["provenance"])
            loaded.render()
        except (
            *(ArithmeticError, AttributeError, LookupError),
            *(RecursionError, TypeError, ValueError),
        ) as error:
            raise ValueError(
                "A comparison must be a `results.json` that "
                f"`tf_gems.compare` has written. Received: '{path}', which is "
                f"not a comparison ({type(error).__name__}: {error})."
            ) from error
        return loaded

    def render(self, sparsity=None):
        """Returns the table as text, best method first.

        Args:
            sparsity: Float, the sparsity to show. Defaults to `None`: all.
        """
        return "\n".join(map(str, self._parts(sparsity)))

    def _parts(self, sparsity=None):
        rows = []
        for found in self.summary():
            if sparsity not in (None, found["sparsity"]):
                continue
            share = f"{found['sparsity']:.2%}"
            if rows and rows[-1][0] != share:
                rows.append([])
            mask = found.get("verdict", {}).get("mask") or ""
            rows.append(
                [
                    *(share, found["method"]),
                    _percent(found["accuracy_before"]),
                    _percent(found["accuracy"]),
                    f"{found['epochs_of_search']} epochs",
                    f"{found['processor_seconds_of_search']:.1f}",
                    f"{mask}{_diverged(found)}",
                ]
            )
        columns = [">sparsity", "method", ">before, %", ">after, %"]
        lines = [Table([*columns, ">search", ">seconds", "mask"], rows)]
        total = printable(self.settings["epochs"])
        lines.append("")
        budget = (
            f"{total} epochs of training for every method, search included."
        )
        if any(row["seeds"] > 1 for row in self.summary()):
            lines += [
                f"{budget} Mean and standard",
                "deviation over seeds; processor seconds of the search.",
            ]
        else:
            lines += [budget, "One seed; processor seconds of the search."]
        return lines

    def draw(self, directory):
        """Writes three plots: accuracy, layers and cost. Requires matplotlib.

        Args:
            directory: Where `accuracy.png` (accuracy against density, as
                Figure 3 of "Rare Gems"), `layers.png` (density by layer, as
                its Figure 7) and `cost.png` (accuracy against epochs and
                processor seconds of the search) are written.

        Raises:
            FileExistsError: If it has files of these names of another program.
            ValueError: See `tf_gems.targets.check_directory`.
        """
        from tf_gems.comparison import pictures

        check_names(directory, pictures.NAMES)
        with (
            lock(directory, wait=True),
            claiming(directory, pictures.NAMES) as directory,
        ):
            pictures.draw(self, directory)


def _rank(row):
    mean, _ = row["accuracy"]
    return row["sparsity"], mean is None, -(mean or 0.0)


def refuse_others(directory):
    """Raises `FileExistsError` if `RESULTS` there are of another program.

    Returns:
        Whether the directory holds a comparison: then they are its own.
    """
    directory = check_directory(directory)
    try:
        Comparison.load(directory / "results.json")
    except (OSError, ValueError):
        check_names(directory, RESULTS)
        return False
    return True


def _percent(pair):
    mean, spread = pair
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + (
        "" if spread is None else f" ±{100 * spread:.2f}"
    )


def _diverged(row):
    if not row["diverged"]:
        return ""
    return f"  {row['diverged']} of {row['seeds']} diverged"
