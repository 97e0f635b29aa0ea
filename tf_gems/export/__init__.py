"""Export: files that store and use the zeros, run before they are named."""

from tf_gems.export.deployment_report import DeploymentReport
from tf_gems.export.export_report import export_report
from tf_gems.export.litert import export_litert
from tf_gems.export.report import ExportReport
from tf_gems.export.saved_model import export_saved_model
from tf_gems.export.xnnpack_report import xnnpack_report

__all__ = [
    "DeploymentReport",
    "ExportReport",
    "export_litert",
    "export_report",
    "export_saved_model",
    "xnnpack_report",
]
