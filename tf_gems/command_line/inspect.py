"""Shows the contents of a ticket file and the sizes of its parts.

It prints the shape, the number and fraction of kept entries and the bytes of
each weight. Then it prints the bytes of each part of the file, the size of the
positions relative to their entropy, and the metadata. The file is read as
data: this command needs neither Keras nor TensorFlow.
"""

import json

from tf_gems.command_line.usage import define_max_bytes
from tf_gems.ticket_file import TicketSummary


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("ticket", metavar="TICKET.gem")
    parser.add_argument(
        "--json", action="store_true", help="print JSON instead of a table"
    )
    define_max_bytes(parser)


def run(values):
    """Prints the summary of a ticket."""
    summary = TicketSummary.read(values.ticket, values.max_bytes)
    print(json.dumps(summary.to_dict(), indent=1) if values.json else summary)
