"""The verdict on a ticket, from accuracies."""

import dataclasses
import math

import numpy as np

from tf_gems.files import replacing
from tf_gems.tables import Report
from tf_gems.tables import Table
from tf_gems.targets import check_file
from tf_gems.validation import check_list
from tf_gems.validation import check_number

BRANCHES = ("ticket", "shuffled", "reinitialized", "random", "inverted")
SPECIFIC = "specific"
ONLY_DENSITIES = "only its layer densities"
ONLY_DISTRIBUTION = "only their distribution"
UNDECIDED = "undecided"
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class SanityReport(Report):
    """The accuracies of a ticket and of its variants, with verdicts.

    Two branches are compared by Welch's 95 % confidence interval for the
    difference of their means:

        d +- t * sqrt(s1^2 / n1 + s2^2 / n2)

    with sample standard deviations `s` of `n` runs, and the quantile `t` of
    Student's distribution with the degrees of freedom of Welch and
    Satterthwaite. With three runs of each branch, `t` is 2.8 to 4.3, so a few
    runs can only distinguish branches that are far apart.

    Args:
        accuracies: Dict from a branch to the accuracies of its runs, floats
            in [0, 1]: `"ticket"`, and any of `"shuffled"`,
            `"reinitialized"`, `"random"` and `"inverted"`.
        tolerance: Float, the difference in accuracy that does not matter.
            Defaults to `0.02`.

    Raises:
        ValueError: If there is no `"ticket"`, or a value is invalid.

    Example:

    >>> report = SanityReport({"ticket": [0.83, 0.84], "shuffled": [0.5, 0.51]})
    >>> report.mask
    'specific'
    """

    accuracies: dict
    tolerance: float = 0.02

    def __post_init__(self):
        _check_accuracies(self.accuracies)
        check_number(self.tolerance, "tolerance", least=0)

    @property
    def mask(self):
        """`"specific"`, `"only its layer densities"` or `"undecided"`.

        Specific: the ticket is significantly better than the shuffled one.
        Only its layer densities: it is better by at most the tolerance.
        Undecided: the runs allow both conclusions. `None` if no shuffled
        ticket was trained.
        """
        return self._judge("shuffled", ONLY_DENSITIES)

    @property
    def weights(self):
        """`"specific"`, `"only their distribution"` or `"undecided"`.

        As for `mask`, with reinitialized weights instead of a shuffled mask.
        """
        return self._judge("reinitialized", ONLY_DISTRIBUTION)

    def _judge(self, branch, otherwise):
        if branch not in self.accuracies:
            return None
        _, low, high = self.difference(branch)
        if low > 0:
            return SPECIFIC
        return otherwise if high < self.tolerance else UNDECIDED

    def difference(self, branch):
        """Returns the difference in accuracy between the ticket and a branch.

        Args:
            branch: Key of `accuracies`.

        Returns:
            The difference of the means and the ends of its interval, which are
            infinite if a branch has a single run.
        """
        return _difference(
            self.accuracies["ticket"], self.accuracies[branch], _CONFIDENCE
        )

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        found = {}
        for branch, runs in self._branches():
            row = found[branch] = {
                "accuracies": [float(a) for a in runs],
                "mean": float(np.mean(runs)),
                "standard_deviation": _deviation(runs),
            }
            if branch != "ticket":
                difference, *ends = self.difference(branch)
                bounded = all(map(math.isfinite, ends))
                row["difference"] = difference
                row["interval"] = ends if bounded else None
        return {
            "mask": self.mask,
            "weights": self.weights,
            "tolerance": self.tolerance,
            "confidence": _CONFIDENCE,
            "branches": found,
        }

    def _parts(self):
        rows = []
        for branch, runs in self._branches():
            spread = _deviation(runs)
            spread = "-" if spread is None else f"{spread:.2%}"
            rows.append([branch, len(runs), f"{np.mean(runs):.2%}", spread])
        lines = [Table(["branch", ">runs", ">accuracy", ">spread"], rows)]
        for subject, verdict_, branch in (
            ("The mask is", self.mask, "shuffled"),
            ("The weights are", self.weights, "reinitialized"),
        ):
            if verdict_ is not None:
                lines.append(f"{subject} {verdict_}: {self._reason(branch)}")
        for branch in ("random", "inverted"):
            if branch in self.accuracies:
                lines.append(f"Against {branch}: {self._reason(branch)}")
        return lines

    def _reason(self, branch):
        """Returns the numbers that a verdict rests on, as a sentence."""
        difference, low, high = self.difference(branch)
        sentence = f"the ticket is {100 * difference:+.2f} points from {branch}"
        if not math.isfinite(low):
            return f"{sentence}; a single run has no spread."
        return (
            f"{sentence}, {_CONFIDENCE:.0%} interval {100 * low:+.2f} to "
            f"{100 * high:+.2f}; differences below "
            f"{100 * self.tolerance:g} do not matter."
        )

    def _branches(self):
        return [
            (branch, self.accuracies[branch])
            for branch in BRANCHES
            if branch in self.accuracies
        ]

    def draw(self, path):
        """Writes a plot of all runs, with the mean of each branch.

        Args:
            path: String or path, whose ending determines the format.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "Plots require matplotlib: `pip install matplotlib`."
            ) from error
        branches = self._branches()
        figure = Figure(figsize=(6, 1 + 0.4 * len(branches)))
        axes = figure.subplots()
        for place, (_, runs) in enumerate(branches):
            values = 100 * np.asarray(runs)
            axes.plot(values, np.full(len(runs), place), "o", alpha=0.5)
            axes.plot(values.mean(), place, "k|", markersize=16)
        axes.set_yticks(range(len(branches)), [name for name, _ in branches])
        axes.invert_yaxis()
        axes.set_xlabel("accuracy in %; the bar is the mean")
        axes.set_title(f"mask: {self.mask}; weights: {self.weights}")
        figure.tight_layout()
        path = check_file(path)
        if not path.suffix:
            path = path.with_suffix(".png")
        with replacing(path) as file:
            figure.savefig(file, format=path.suffix[1:])


def _difference(ours, theirs, confidence):
    """Returns the difference of two means, and the ends of its interval."""
    difference = float(np.mean(ours) - np.mean(theirs))
    if min(len(ours), len(theirs)) < 2:
        return difference, -math.inf, math.inf
    parts = [np.var(runs, ddof=1) / len(runs) for runs in (ours, theirs)]
    if sum(parts) == 0:
        return difference, difference, difference
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(runs) - 1)
        for part, runs in zip(parts, (ours, theirs), strict=True)
    )
    margin = _student_quantile(confidence, freedom) * math.sqrt(sum(parts))
    return difference, difference - margin, difference + margin


def _student_quantile(confidence, freedom):
    """Returns the `t` with `P(|T| < t) = confidence`.

    `T` is `sqrt(freedom) * tan(angle)` for an angle with the density
    `cos(angle)^(freedom - 1)`, which is summed up here.

    Example:

    >>> round(float(_student_quantile(0.95, 4)), 3)
    2.776
    """
    angles = np.linspace(0, math.pi / 2, 100_001)
    middles = (angles[1:] + angles[:-1]) / 2
    inside = np.cumsum(np.cos(middles) ** (freedom - 1))
    angle = np.interp(confidence, inside / inside[-1], angles[1:])
    return math.sqrt(freedom) * math.tan(angle)


def _deviation(runs):
    """Sample standard deviation; `None` for a single run."""
    return float(np.std(runs, ddof=1)) if len(runs) > 1 else None


def _check_accuracies(accuracies):
    if (
        not isinstance(accuracies, dict)
        or "ticket" not in accuracies
        or set(accuracies) - set(BRANCHES)
    ):
        raise ValueError(
            "`accuracies` must be a dict with the key 'ticket', and others "
            f"among {', '.join(map(repr, BRANCHES[1:]))}. Received: "
            f"accuracies={accuracies!r:.300}."
        )
    for branch, runs in accuracies.items():
        name = f"accuracies[{branch!r}]"
        for run in check_list(runs, name, "floats in [0, 1]"):
            check_number(run, name, 0, 1)
