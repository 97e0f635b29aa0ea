"""Export: files that store and use the zeros, run before they are named."""

from tf_gems.export.litert import export_litert
from tf_gems.export.report import ExportReport

__all__ = ["ExportReport", "export_litert"]
