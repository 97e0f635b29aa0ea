"""The ticket file, `.gem`: masks and kept values near their information.

All integers are little-endian. Lengths are in bytes.

    offset      length
         0           4   "\\x89GEM"
         4           4   version, 2
         8           8   T, length of the file
        16           4   H, length of the header as it is stored
        20           4   length of the header as it is read, at most 2^20
        24           8   V, length of the numbers as they are stored
        32           H   header: JSON in UTF-8, deflated (RFC 1951)
      32+H           P   positions, see `positions`
    32+H+P           S   signs, eight to a byte, the first in the highest bit
     T-4-V           V   numbers, deflated
       T-4           4   CRC-32 (of zlib and PNG) of all before it

The header is an object of `"weights"`, `"fingerprint"`, `"metadata"` and, if
the file has a model config, `"config"`. Other keys are ignored.
`"weights"` holds lists with an item for each weight of the network, in its
order:

* `"path"`: string, different for all weights;
* `"shape"`: list of integers;
* `"dtype"`: the type that the values are given when they are read;
* `"kept"`: the number of ones in the mask, or `null` if it has none;
* `"width"`: the width of the mask's Rice code, or `null`;
* `"coding"`: how its values are written, see `values`: those that are kept, or
  all if it has no mask. Arrays are flattened with the last axis the fastest.

This says all other lengths. A weight of c values has one number if its coding
is `"constant"` or `"signs"`, c numbers of two bytes if it is `"float16"`, and c
numbers of its own type if it is `"plain"`; and c bits of signs if it is
`"signs"`. Positions, signs and numbers follow each other in the order of the
weights; unused bits of a last byte are zero. P is what the other parts leave,
and positions say themselves where they end.

`"fingerprint"` is the start of a SHA-256 of the network's shapes and of which
weights have masks, see `header.fingerprint`. `"metadata"` is what the user
wants. `"config"` is that of `keras.saving.serialize_keras_object`, without
initializers, see `tf_gems.network_config`; it is data, and a reader that builds
a network of it has to see to that. It takes 1.6 kB for ResNet-20, by which
that ticket has 11 kB instead of 9.4: files are larger for it, but whole.
Readers of version 2 from before it was thought of read on without it.

A reader compares every size with the others, and the arrays that it would make
with `max_bytes`, before it makes them. Version 1 was a zip archive.
"""

from tf_gems.ticket_file.container import MAX_BYTES
from tf_gems.ticket_file.container import Contents
from tf_gems.ticket_file.container import decode
from tf_gems.ticket_file.container import encode
from tf_gems.ticket_file.container import read
from tf_gems.ticket_file.container import write
from tf_gems.ticket_file.header import fingerprint
from tf_gems.ticket_file.summary import TicketSummary

__all__ = [
    "MAX_BYTES",
    "Contents",
    "TicketSummary",
    "decode",
    "encode",
    "fingerprint",
    "read",
    "write",
]
