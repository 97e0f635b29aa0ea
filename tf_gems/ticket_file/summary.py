"""The contents of a ticket file and the sizes of its parts."""

import dataclasses
import json
import math

from tf_gems.tables import DataReport
from tf_gems.tables import Table
from tf_gems.text import printable
from tf_gems.ticket_file import container
from tf_gems.ticket_file import header
from tf_gems.ticket_file import positions

_WIDEST = 72
_LONGEST_VALUE = 400
_NAMES = {
    "header": "header and checksum",
    "positions": "positions of the kept weights",
    "signs": "signs",
    "numbers": "numbers",
}


@dataclasses.dataclass(frozen=True)
class TicketSummary(DataReport):
    """The layers, bytes and metadata of a ticket file.

    Args:
        layers: List of dicts, one for each weight of the network, with its
            `path`, `shape`, `kept` (`None` if it has no mask), `density`,
            `coding` of its values (see `ticket_file.values`), and the bits of
            its `positions`, of the `entropy` that bounds them, and of its
            `values` before all numbers are deflated together.
        lengths: Dict from the parts of the file to their sizes in bytes.
        metadata: Dict of JSON values.
        fingerprint: String, see `ticket_file.fingerprint`.
        has_config: Whether the file contains the config of its network, so
            that it can be expanded without other files.

    Example:

    ```python
    print(tf_gems.Ticket.inspect("resnet20.gem"))
    ```
    """

    layers: list
    lengths: dict
    metadata: dict
    fingerprint: str
    has_config: bool = False
    _computed = ("bytes", "entropy_bytes", "ratio")

    @classmethod
    def read(cls, path, max_bytes=container.MAX_BYTES):
        """Reads the summary of a file, without making its arrays.

        Args:
            path: String or path.
            max_bytes: Integer, the most memory that this may take. Defaults
                to 2 GiB.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file is no ticket, is damaged, or needs more
                memory.
        """
        contents, bits = container.inspect(path, max_bytes)
        return cls(
            layers=[
                _layer(entry, bits.get(entry.path))
                for entry in contents.entries
            ],
            lengths=contents.lengths,
            metadata=contents.metadata,
            fingerprint=header.fingerprint(
                [entry.shape for entry in contents.entries],
                [entry.kept is not None for entry in contents.entries],
            ),
            has_config=contents.config is not None,
        )

    @property
    def bytes(self):
        """Length of the file."""
        return sum(self.lengths.values())

    @property
    def entropy_bytes(self):
        """What positions cannot be shorter than, for masks at random.

        It is the sum over the masks of `log2(binomial(size, kept))` bits.
        """
        return sum(layer["entropy"] for layer in self.layers) / 8

    @property
    def ratio(self):
        """Bytes of positions over `entropy_bytes`; 1 if both are 0."""
        if not self.entropy_bytes:
            return 1.0
        return self.lengths["positions"] / self.entropy_bytes

    def _parts(self):
        rows = []
        for layer in self.layers:
            kept = density = ""
            if layer["kept"] is not None:
                kept, density = f"{layer['kept']:,}", f"{layer['density']:.2%}"
            size = math.ceil((layer["positions"] + layer["values"]) / 8)
            rows.append(
                [
                    *(_shown(layer["path"]), tuple(layer["shape"]), kept),
                    *(density, f"{size:,}", layer["coding"]),
                ]
            )
        masked = [layer for layer in self.layers if layer["kept"] is not None]
        size = sum(math.prod(layer["shape"]) for layer in masked)
        kept = sum(layer["kept"] for layer in masked)
        total = ["prunable weights", f"{size:,}", f"{kept:,}"]
        rows.append([*total, f"{kept / size:.2%}", "", ""])
        parts = [
            [f"{self.lengths[part]:,}", name] for part, name in _NAMES.items()
        ]
        return [
            Table(
                ["weight", ">shape", ">kept", ">density", ">bytes", "values"],
                rows,
            ),
            "",
            Table(
                [">bytes", "part of the file"],
                [*parts, [f"{self.bytes:,}", "total"]],
            ),
            "",
            f"Positions take {self.ratio:.3f} times their entropy, "
            f"{self.entropy_bytes:,.1f} bytes, the sum over the",
            "weights of log2(binomial(size, kept)). The bytes of a weight "
            "are counted before",
            "all numbers are deflated together.",
            "",
            f"fingerprint: {self.fingerprint}",
            f"config of the network: {'yes' if self.has_config else 'no'}",
            *(
                f"{_shown(key)}: {json.dumps(value):.{_LONGEST_VALUE}}"
                for key, value in self.metadata.items()
            ),
        ]


def _shown(text):
    """Returns a name for a terminal, its end if it is long."""
    text = text if len(text) <= _WIDEST else f"...{text[3 - _WIDEST :]}"
    return printable(text)


def _layer(entry, bits):
    signs, numbers = entry.value_sizes
    layer = {
        "path": entry.path,
        "shape": list(entry.shape),
        "kept": entry.kept,
        "density": None,
        "coding": entry.coding,
        "positions": 0,
        "entropy": 0.0,
        "values": signs + 8 * numbers,
    }
    if bits is not None:
        layer["density"] = entry.kept / max(1, entry.size)
        layer["positions"] = bits
        layer["entropy"] = positions.entropy(entry.size, entry.kept)
    return layer
