"""Writes the network of a ticket as a plain Keras model.

usage: python -m tf_gems expand TICKET.gem --output=PLAIN.keras
           [--model=MODEL.keras | --network=resnet20]
           [--input_shape=32,32,3] [--classes=10] [--max_bytes=N]

The ticket's starting weights, multiplied by its masks, replace those of the
model, which must be of the ticket's network, but may hold any weights. Without
a model the network is built from the config in the ticket; without that it is
one of `tf_gems.zoo`, by default the one that the ticket's metadata name.
Whoever opens the file needs Keras only.
"""

import math

from absl import flags

from tf_gems.command_line.usage import UsageError
from tf_gems.command_line.usage import define_max_bytes
from tf_gems.command_line.usage import file_size
from tf_gems.command_line.usage import load_model
from tf_gems.command_line.usage import only
from tf_gems.files import replacing_path
from tf_gems.targets import check_file
from tf_gems.text import printable
from tf_gems.validation import check_choice

_LARGEST_IMAGE = 1 << 22  # numbers: 1,182 x 1,182 pixels in color
_MOST_CLASSES = 1 << 20
# The ticket and what it is read from, the model, its values while they are
# assigned, and the file of them that Keras writes in memory.
_COPIES = 6
_BUFFERS = 1 << 25


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "output",
        None,
        "File to write, which ends in .keras. One that exists is replaced.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string(
        "model",
        None,
        "Keras model of the ticket's network.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "network", None, "Name of a network of the zoo.", flag_values=values
    )
    flags.DEFINE_list(
        "input_shape",
        None,
        "Shape of its images, as in 32,32,3. The network's own by default.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "classes",
        None,
        "Number of its classes. The network's own by default.",
        lower_bound=1,
        upper_bound=_MOST_CLASSES,
        flag_values=values,
    )
    define_max_bytes(values, 1 << 33)


def run(arguments, values):
    """Writes the model of a ticket."""
    from tf_gems.layers.gem_layer import find_gem_layers
    from tf_gems.network import strip
    from tf_gems.ticket import Ticket

    path, output = only(arguments, "ticket file"), values.output
    if not output.endswith(".keras"):
        raise UsageError(
            f"A model's file ends in .keras. Received: --output={output}."
        )
    if values.model and values.network:
        raise UsageError("Give --model or --network, not both.")
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
            "The network of a ticket must fit into the memory that is allowed. "
            f"Received: a ticket whose network takes {needed:,} bytes to "
            f"build and save, with --max_bytes={max_bytes}. Raise it if you "
            "trust the file."
        )


def _zoo(ticket, values):
    """Returns a network of the zoo."""
    from tf_gems import zoo

    name = values.network or ticket.metadata.get("network")
    if name not in zoo.__all__ and not values.network:
        raise ValueError(
            "A ticket tells its network by a config or a name. Received: one "
            f"whose metadata name no network of the zoo, but {name!r}. Give "
            f"--model, or --network: {', '.join(zoo.__all__)}."
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
                "An image's shape is positive integers, whose product is at "
                f"most {_LARGEST_IMAGE:,}. Received: --input_shape="
                f"{','.join(values.input_shape):.80}."
            )
        arguments["input_shape"] = shape
    try:
        return make(**arguments)
    except TypeError as error:
        raise UsageError(
            f"{name} needs --input_shape and --classes ({error})."
        ) from error
