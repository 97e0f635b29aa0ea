"""Writes the network of a ticket as a plain Keras model.

The weights of the new model are the initial weights of the ticket, multiplied
by its masks. The network is built from the config in the ticket. If the ticket
has no config, pass a Keras model of the same network with `--model`, or the
name of a network of `tf_gems.zoo` with `--network`. The default is the network
that the metadata of the ticket names. The new file requires Keras only.
"""

import math

from tf_gems.command_line.usage import UsageError
from tf_gems.command_line.usage import define_max_bytes
from tf_gems.command_line.usage import file_size
from tf_gems.command_line.usage import import_keras
from tf_gems.command_line.usage import integer
from tf_gems.command_line.usage import load_model
from tf_gems.command_line.usage import words
from tf_gems.files import replacing_path
from tf_gems.targets import check_file
from tf_gems.text import printable
from tf_gems.validation import check_choice

_LARGEST_IMAGE = 1 << 22  # numbers: 1,182 x 1,182 pixels in color
_MOST_CLASSES = 1 << 20
# The ticket and its bytes, the model, its values while they are assigned, and
# the file that Keras writes in memory.
_COPIES = 6
_BUFFERS = 1 << 25


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("ticket", metavar="TICKET.gem")
    parser.add_argument(
        "--output",
        required=True,
        metavar="PLAIN.keras",
        help="file to write; an existing file is replaced",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL.keras",
        help="Keras model of the ticket's network",
    )
    parser.add_argument(
        "--network", metavar="NAME", help="name of a network in `tf_gems.zoo`"
    )
    parser.add_argument(
        "--input_shape",
        type=words,
        metavar="32,32,3",
        help="shape of its input images (default: that of the network)",
    )
    parser.add_argument(
        "--classes",
        type=integer(1, _MOST_CLASSES),
        metavar="N",
        help="number of its classes (default: that of the network)",
    )
    define_max_bytes(parser, 1 << 33)


def run(values):
    """Writes the model of a ticket."""
    import_keras()
    from tf_gems.layers.gem_layer import find_gem_layers
    from tf_gems.network import strip
    from tf_gems.ticket import Ticket

    path, output = values.ticket, values.output
    if not output.endswith(".keras"):
        raise UsageError(
            "The name of a model file must end in .keras. Received: "
            f"--output={output}."
        )
    if values.model and values.network:
        raise UsageError("--model and --network cannot be combined.")
    check_file(output, "--output")
    ticket = Ticket.load(path, values.max_bytes)
    _refuse_large(ticket, values.max_bytes)
    named = values.network or values.input_shape or values.classes
    if ticket.config and not (values.model or named):
        model = ticket.network()
    else:
        model = (
            load_model(values.model) if values.model else _zoo(ticket, values)
        )
        ticket.apply(model)
    if find_gem_layers(model):
        model = strip(model)
    with replacing_path(output, ".keras") as partial:
        model.save(partial)
    print(
        f"Wrote {output}, {file_size(output)}: '{printable(model.name)}' with "
        f"{ticket.kept:,} of {ticket.size:,} prunable weights."
    )


def _refuse_large(ticket, max_bytes):
    """Raises an error if the network would take more memory than allowed."""
    arrays = (*ticket.weights.values(), *ticket.masks.values())
    needed = _BUFFERS + _COPIES * sum(array.nbytes for array in arrays)
    if needed > max_bytes:
        raise ValueError(
            "The network of a ticket must fit into the memory limit. "
            f"Received: a ticket whose network needs {needed:,} bytes to "
            f"build and save, with --max_bytes={max_bytes}. Raise the limit "
            "if you trust the file."
        )


def _zoo(ticket, values):
    """Returns a network of the zoo."""
    from tf_gems import zoo

    name = values.network or ticket.metadata.get("network")
    if name not in zoo.__all__ and not values.network:
        raise ValueError(
            "The ticket contains neither a config nor the name of a network "
            f"in `tf_gems.zoo`. Received: metadata with the network {name!r}. "
            "Pass --model, or --network with one of: "
            f"{', '.join(zoo.__all__)}."
        )
    make = getattr(zoo, check_choice(name, "network", zoo.__all__))
    arguments = {}
    if values.classes is not None:
        arguments["classes"] = values.classes
    if values.input_shape is not None:
        try:
            shape = tuple(map(int, values.input_shape))
        except ValueError:
            shape = ()
        if not shape or min(shape) < 1 or math.prod(shape) > _LARGEST_IMAGE:
            raise UsageError(
                "The shape of an image consists of positive integers, whose "
                f"product is at most {_LARGEST_IMAGE:,}. Received: "
                f"--input_shape={','.join(values.input_shape):.80}."
            )
        arguments["input_shape"] = shape
    try:
        return make(**arguments)
    except TypeError as error:
        raise UsageError(
            f"{name} requires --input_shape and --classes ({error})."
        ) from error
