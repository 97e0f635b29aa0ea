"""Exports that store weights sparsely."""

from tf_gems.export.deployment import DeploymentReport
from tf_gems.export.deployment import deployment_report
from tf_gems.export.ethos_u import EthosUReport
from tf_gems.export.ethos_u import export_ethos_u
from tf_gems.export.gem import export_gem
from tf_gems.export.litert import export_litert
from tf_gems.export.micro import export_micro
from tf_gems.export.readiness_report import ReadinessReport
from tf_gems.export.readiness_report import readiness_report
from tf_gems.export.report import ExportReport
from tf_gems.export.rewrite_report import RewriteReport
from tf_gems.export.saved_model import export_saved_model
from tf_gems.export.sparse_operators import sparse_operators
from tf_gems.export.sparse_ready import make_sparse_ready
from tf_gems.export.tf_keras_twin import from_tf_keras
from tf_gems.export.tf_keras_twin import to_tf_keras
from tf_gems.export.vela import VelaEstimate

__all__ = [
    "DeploymentReport",
    "EthosUReport",
    "ExportReport",
    "ReadinessReport",
    "RewriteReport",
    "VelaEstimate",
    "export_ethos_u",
    "export_gem",
    "export_litert",
    "export_micro",
    "deployment_report",
    "export_saved_model",
    "from_tf_keras",
    "make_sparse_ready",
    "readiness_report",
    "to_tf_keras",
    "sparse_operators",
]
