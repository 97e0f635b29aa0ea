"""What a rewrite for XNNPACK changed, layer by layer."""

import dataclasses

from tf_gems.export.readiness_report import ReadinessReport
from tf_gems.tables import Report
from tf_gems.tables import Table


@dataclasses.dataclass
class RewriteReport(Report):
    """The layers that were changed, and those that could not be.

    Args:
        changes: List of dicts, one for each layer that was changed: `layer`,
            its name; `change`, a sentence without its subject; `exact`,
            whether the outputs stay the same.
        left: List of dicts, one for each layer that breaks a rule and could
            not be changed: `layer` and `reason`.
        xnnpack: `tf_gems.export.ReadinessReport` of the new model.

    Example:

    ```python
    ready, report = tf_gems.export.make_sparse_ready(model)
    print(report)
    ```
    """

    changes: list
    left: list
    xnnpack: ReadinessReport

    @property
    def exact(self):
        """Whether the new model computes what the old one does."""
        return all(change["exact"] for change in self.changes)

    @property
    def eligible(self):
        """Whether every 1x1 convolution can run sparse now."""
        return self.xnnpack.eligible

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        return {
            "changes": self.changes,
            "left": self.left,
            "xnnpack": self.xnnpack.to_dict(),
            "exact": self.exact,
            "eligible": self.eligible,
        }

    def _parts(self):
        rows = [
            [
                row["layer"],
                "exact" if row["exact"] else "near-exact",
                row["change"],
            ]
            for row in self.changes
        ]
        rows += [
            [row["layer"], "not changed", row["reason"]] for row in self.left
        ]
        lines = [
            Table(["layer", "outputs", "change"], rows),
            f"{len(self.changes)} layers changed, {len(self.left)} that could "
            "not be",
        ]
        able = sum(not row["reason"] for row in self.xnnpack.layers)
        lines.append(
            f"{able} of {len(self.xnnpack.layers)} 1x1 convolutions can run "
            "sparse"
        )
        if self.xnnpack.obstacle:
            lines.append(f"obstacle: {self.xnnpack.obstacle}")
        return lines
