"""Shows what a ticket file holds, and where its bytes go.

usage: python -m tf_gems inspect TICKET.gem [--json] [--max_bytes=N]

By weight: its shape, how many are kept, what fraction that is, and the bytes
of it. Then the bytes of the file by part, what its positions take over their
entropy, and the metadata.
"""

import json

from absl import flags

from tf_gems.command_line.usage import define_max_bytes
from tf_gems.command_line.usage import only
from tf_gems.ticket_file import TicketSummary


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_bool(
        "json", False, "Print JSON instead of a table.", flag_values=values
    )
    define_max_bytes(values)


def run(arguments, values):
    """Prints the summary of a ticket."""
    path = only(arguments, "ticket file")
    summary = TicketSummary.read(path, values.max_bytes)
    print(json.dumps(summary.to_dict(), indent=1) if values.json else summary)
