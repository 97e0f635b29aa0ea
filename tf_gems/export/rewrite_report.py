"""The report on a rewritten model."""

import dataclasses

from tf_gems.export.readiness_report import ReadinessReport
from tf_gems.tables import DataReport
from tf_gems.tables import Table


@dataclasses.dataclass
class RewriteReport(DataReport):
    """The layers that were changed, and those that could not be changed.

    Args:
        changes: List of dicts, one for each changed layer: `layer`, its name;
            `change`, a description; `exact`, whether the outputs stay the
            same.
        left: List of dicts, one for each layer that violates a requirement and
            could not be changed: `layer` and `reason`.
        xnnpack: `tf_gems.export.ReadinessReport` of the new model.
        shared: List of names of layers that both models share, because their
            state may consist of more than their config and weights: custom
            layers, and layers that adapt to data or contain a function.
            Training one model changes them in the other. Defaults to `[]`.
        difference: Float, the largest difference of the outputs, as a
            fraction of the largest output. Defaults to `0.0`.

    Example:

    ```python
    ready, report = tf_gems.export.make_sparse_ready(model)
    print(report)
    ```
    """

    changes: list
    left: list
    xnnpack: ReadinessReport
    shared: list = dataclasses.field(default_factory=list)
    difference: float = 0.0
    _computed = ("exact", "eligible")

    @property
    def exact(self):
        """Whether the new model has the same outputs as the original."""
        return all(change["exact"] for change in self.changes)

    @property
    def eligible(self):
        """Whether all 1x1 convolutions of the new model can run sparsely."""
        return self.xnnpack.eligible

    def _parts(self):
        rows = []
        for row in self.changes:
            outputs = "exact" if row["exact"] else "near-exact"
            rows.append([row["layer"], outputs, row["change"]])
        for row in self.left:
            rows.append([row["layer"], "not changed", row["reason"]])
        convolutions = self.xnnpack.layers
        able = sum(not row["reason"] for row in convolutions)
        parts = [
            Table(["layer", "outputs", "change"], rows),
            f"{len(self.changes)} layers changed, {len(self.left)} could not "
            f"be changed; outputs differ by {self.difference:.2g} of the "
            "largest output",
            f"{able} of {len(convolutions)} 1x1 convolutions can run sparsely",
        ]
        if self.shared:
            parts.append(f"both models share: {', '.join(self.shared)}")
        if self.xnnpack.obstacle:
            parts.append(f"obstacle: {self.xnnpack.obstacle}")
        return parts
