"""All public names. `tf_gems` loads this module when a name is first used."""

# ruff: noqa: F401

from tf_gems import callbacks
from tf_gems import datasets
from tf_gems import gem_miner
from tf_gems import initializers
from tf_gems import layers
from tf_gems import methods
from tf_gems import optimizers
from tf_gems import page
from tf_gems import sanity
from tf_gems import schedules
from tf_gems import zoo
from tf_gems.batch_norm import recalibrate_batch_norm
from tf_gems.compaction import compact
from tf_gems.comparison import Comparison
from tf_gems.comparison import compare
from tf_gems.export import DeploymentReport
from tf_gems.export import ExportReport
from tf_gems.export import deployment_report
from tf_gems.export import export_litert
from tf_gems.export import export_saved_model
from tf_gems.gem_miner import GemMinerCallback
from tf_gems.layers import GemLayer
from tf_gems.methods import GradualMagnitudeCallback
from tf_gems.network import strip
from tf_gems.network import unwrap
from tf_gems.planning import Plan
from tf_gems.planning import plan
from tf_gems.pretrained import load_pretrained
from tf_gems.pruning_report import PruningReport
from tf_gems.selection import distributions
from tf_gems.selection import masks
from tf_gems.selection import patterns
from tf_gems.sparse_model import SparseModel
from tf_gems.ticket import Ticket
