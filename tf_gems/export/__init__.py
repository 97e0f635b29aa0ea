"""Export: files that store and use the zeros, run before they are named."""

from tf_gems.export.deployment_report import DeploymentReport
from tf_gems.export.export_report import export_report
from tf_gems.export.gem import export_gem
from tf_gems.export.litert import export_litert
from tf_gems.export.report import ExportReport
from tf_gems.export.saved_model import export_saved_model
from tf_gems.export.sparse_readiness import SparseReadiness
from tf_gems.export.sparse_readiness import sparse_readiness
from tf_gems.export.sparse_ready import make_sparse_ready
from tf_gems.export.sparse_ready_report import SparseReadyReport
from tf_gems.export.tf_keras_twin import from_tf_keras
from tf_gems.export.tf_keras_twin import to_tf_keras
from tf_gems.export.xnnpack_report import xnnpack_report

__all__ = [
    "DeploymentReport",
    "ExportReport",
    "SparseReadiness",
    "SparseReadyReport",
    "export_gem",
    "export_litert",
    "export_report",
    "export_saved_model",
    "from_tf_keras",
    "make_sparse_ready",
    "sparse_readiness",
    "to_tf_keras",
    "xnnpack_report",
]
