"""Export: files that store and use the zeros, run before they are named."""

from tf_gems.export.eligibility import XnnpackReport
from tf_gems.export.eligibility import xnnpack_report
from tf_gems.export.litert import export_litert
from tf_gems.export.report import ExportReport
from tf_gems.export.saved_model import export_saved_model
from tf_gems.export.sparse_ready import make_sparse_ready
from tf_gems.export.sparse_ready_report import SparseReadyReport

__all__ = [
    "ExportReport",
    "SparseReadyReport",
    "XnnpackReport",
    "export_litert",
    "export_saved_model",
    "make_sparse_ready",
    "xnnpack_report",
]
