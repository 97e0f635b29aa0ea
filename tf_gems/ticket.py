"""Tickets: the masks that a method finds, and the weights to start from."""

import dataclasses

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems import ticket_file
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.training_guard import forget_compilation
from tf_gems.network import gems_of
from tf_gems.network import network_weights
from tf_gems.network import prunable_weights
from tf_gems.network import refuse_before_mining
from tf_gems.network import refuse_lost_weights
from tf_gems.network import refuse_unfinished_mining
from tf_gems.network_config import config_of
from tf_gems.network_config import network_of
from tf_gems.pruning_report import unique_paths
from tf_gems.tables import Report
from tf_gems.tables import Table
from tf_gems.ticket_file.container import check_contents
from tf_gems.validation import check_choice
from tf_gems.wrapper_removal import wrapped_by


@dataclasses.dataclass(eq=False)
class Ticket(Report):
    """A sparse subnetwork: the masks and the initial values of all weights.

    Args:
        masks: Dict from the path of a prunable weight to its mask, a bool
            array.
        weights: Dict from the path of every weight of the network, including
            biases and normalization statistics, in the order of the network,
            to its initial value.
        metadata: Dict that describes how the ticket was found. Values are JSON
            values, or NumPy scalars and arrays, which become numbers and lists
            in a file. NaN and infinity are not allowed. Defaults to none.
        config: Dict of JSON values, the config from which `network` builds the
            network, see `tf_gems.network_config`. Defaults to `None`.

    Example:

    ```python
    ticket = sparse.ticket()
    ticket.save("resnet20.gem")
    tf_gems.Ticket.load("resnet20.gem").apply(keras_model)
    ```
    """

    masks: dict
    weights: dict
    metadata: dict = dataclasses.field(default_factory=dict)
    config: dict | None = None

    def __post_init__(self):
        if self.metadata is None:
            self.metadata = {}
        check_contents(self.masks, self.weights, self.metadata, self.config)

    @classmethod
    def from_model(cls, model: keras.Model, masks: str = "alive") -> "Ticket":
        """Returns the ticket of a model that has been mined.

        Args:
            model: `SparseModel`, or Keras model that contains `GemLayer`s.
            masks: `"alive"` or `"rounded"`, see `SparseModel.ticket`.

        Returns:
            `Ticket`.

        Raises:
            RuntimeError: If nothing has been pruned yet, or more weights are
                alive than the target of mining allows.
        """
        check_choice(masks, "masks", ("alive", "rounded"))
        gems = gems_of(model)
        refuse_before_mining(gems, model)
        if masks == "alive":
            refuse_unfinished_mining(gems, model)
            refuse_lost_weights(gems, model)
        found = [
            gem.current_masks() if masks == "rounded" else gem.ticket_masks()
            for gem in gems
        ]
        return cls.from_masks(model, sum(found, []))

    @classmethod
    def from_masks(
        cls, model: keras.Model, masks, metadata: dict | None = None
    ) -> "Ticket":
        """Returns a ticket of given masks and the current weights of a model.

        Args:
            model: `SparseModel`, or Keras model that contains `GemLayer`s.
            masks: List of bool arrays, one for each prunable weight.
            metadata: Dict of JSON values. Defaults to `None`.

        Returns:
            `Ticket`.
        """
        prunable = prunable_weights(model)
        found = {
            id(w.weight): mask for w, mask in zip(prunable, masks, strict=True)
        }
        weights = network_weights(model)
        paths = unique_paths(weights)
        return cls(
            masks={
                path: found[id(v)]
                for path, v in zip(paths, weights, strict=True)
                if id(v) in found
            },
            weights={
                path: _copy(v) for path, v in zip(paths, weights, strict=True)
            },
            metadata=metadata or {},
            config=_config(model),
        )

    @property
    def size(self) -> int:
        """Number of prunable weights."""
        return sum(m.size for m in self.masks.values())

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return sum(int(np.count_nonzero(m)) for m in self.masks.values())

    @property
    def density(self) -> float:
        """Fraction of prunable weights that are kept."""
        return self.kept / self.size

    @property
    def sparsity(self) -> float:
        """Fraction of prunable weights that are pruned, `1 - density`."""
        return 1.0 - self.density

    def layers(self) -> list[dict]:
        """Returns path, shape, kept and density of each prunable weight."""
        return [
            {
                "path": path,
                "shape": list(mask.shape),
                "kept": int(np.count_nonzero(mask)),
                "density": float(np.mean(mask)),
            }
            for path, mask in self.masks.items()
        ]

    def _parts(self):
        rows = [
            [
                row["path"],
                tuple(row["shape"]),
                f"{row['kept']:,}",
                f"{row['density']:.2%}",
            ]
            for row in self.layers()
        ]
        total = ["total", f"{self.size:,}", f"{self.kept:,}"]
        rows.append([*total, f"{self.density:.2%}"])
        return [Table(["weight", ">shape", ">kept", ">density"], rows)]

    def apply(self, model: keras.Model) -> None:
        """Sets the masks and the initial weights of a model.

        A `SparseModel` (or a model that contains `GemLayer`s) is switched to
        fine-tuning and must be compiled before `fit`. The weights of a plain
        Keras model are set to the weights of the ticket, multiplied by their
        masks. If the networks differ, nothing is changed.

        Args:
            model: `SparseModel` or Keras model of the ticket's network.

        Raises:
            ValueError: If the model has another network.
        """
        gems = find_gem_layers(model)
        weights = network_weights(model)
        self.refuse_other_network(model)
        masked = {}
        for (path, value), variable in zip(
            self.weights.items(), weights, strict=True
        ):
            mask = self.masks.get(path)
            if mask is not None:
                masked[id(variable)] = mask
                value = np.where(mask, value, np.zeros_like(value))
            variable.assign(value)
        for part in _keras.flatten_layers(model):
            if isinstance(part, keras.layers.Normalization):
                part.finalize_state()  # it computes with what it keeps of them
        for gem in gems:
            for prunable in gem.prunable:
                mask = masked[id(prunable.weight)]
                prunable.alive.assign(mask)
                # A network that returns to mining computes the same.
                prunable.score.assign(mask.astype("float32"))
            gem.target.assign(self.kept)
            gem.lost = 0
            gem.set_phase("finetuning")
        if gems:
            forget_compilation(model)

    def refuse_other_network(self, model):
        """Raises an error if a model has another network than the ticket."""
        gems = find_gem_layers(model)
        weights = network_weights(model)
        ours = [np.shape(v) for v in self.weights.values()]
        theirs = [tuple(v.shape) for v in weights]
        rule = (
            "A ticket can only be used with the network that it was found in. "
        )
        if len(ours) != len(theirs):
            raise ValueError(
                f"{rule}Received: model='{model.name}' with {len(theirs)} "
                f"weights; the ticket has {len(ours)}."
            )
        for path, shape, variable in zip(
            self.weights, ours, weights, strict=True
        ):
            if shape != tuple(variable.shape):
                raise ValueError(
                    f"{rule}Received: model='{model.name}' with weight "
                    f"'{variable.path}' of shape {tuple(variable.shape)}; in "
                    f"its place, the ticket has '{path}' of shape {shape}."
                )
        if not gems:
            return
        prunable = {id(w.weight) for gem in gems for w in gem.prunable}
        for path, variable in zip(self.weights, weights, strict=True):
            if (path in self.masks) != (id(variable) in prunable):
                raise ValueError(
                    f"{rule}Received: model='{model.name}', which prunes "
                    "other weights than the ticket: they differ in "
                    f"'{variable.path}'. Pass the same `filters`."
                )

    @property
    def fingerprint(self) -> str:
        """String that identifies the network by the shapes of its weights.

        It does not depend on the backend or on the names of layers.
        """
        return ticket_file.fingerprint(
            [np.shape(value) for value in self.weights.values()],
            [path in self.masks for path in self.weights],
        )

    def network(self) -> keras.Model:
        """Returns a plain Keras model with the weights of this ticket, masked.

        The model is built from the config of the ticket, which is data. No
        code from a file is run, and the network must fit the weights of the
        ticket.

        Returns:
            Keras model.

        Raises:
            ValueError: If the ticket has no config, or an invalid one.

        Example:

        ```python
        tf_gems.Ticket.load("resnet20.gem").network().save("resnet20.keras")
        ```
        """
        if self.config is None:
            raise ValueError(
                "This ticket has no model config, because its network "
                "contains parts that are not Keras layers, or because it was "
                "saved with `config=False`. Received: config=None. Build the "
                "model and call `ticket.apply(model)`."
            )
        shapes = [np.shape(value) for value in self.weights.values()]
        model = network_of(self.config, shapes)
        self.apply(model)
        return model

    def save(self, path, dtype=None, config=True):
        """Writes the ticket to a file, in the format of `ticket_file`.

        Of pruned weights, only the kept values are stored. If all values of a
        weight have the same magnitude, one bit is stored for each.

        Args:
            path: String or path, usually ending in `.gem`.
            dtype: `"float16"` to round other values to half precision, for a
                smaller file. They are converted back to float32 when the file
                is loaded. Defaults to `None`: values are stored exactly.
            config: Whether to write the config from which `network` builds the
                network, 1.6 kB for ResNet-20. Defaults to `True`.

        Raises:
            OSError: If the file cannot be written. An existing file is
                unchanged.
            ValueError: If `dtype` or a value has an invalid type.
        """
        if dtype is not None:
            check_choice(dtype, "dtype", ("float16",))
        ticket_file.write(
            path,
            self.masks,
            self.weights,
            self.metadata,
            dtype,
            self.config if config else None,
        )

    @classmethod
    def load(cls, path, max_bytes: int = ticket_file.MAX_BYTES) -> "Ticket":
        """Reads a ticket from a file. No code from the file is run.

        Args:
            path: String or path.
            max_bytes: Integer, the limit in bytes for the memory of reading,
                because a small file can describe large arrays. Defaults to 2
                GiB.

        Returns:
            `Ticket`, with zeros in place of the pruned weights.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file is not a ticket, is damaged, has an unknown
                version, or needs more memory.
        """
        found = ticket_file.read(path, max_bytes)
        return cls(found.masks, found.weights, found.metadata, found.config)

    @staticmethod
    def inspect(
        path, max_bytes: int = ticket_file.MAX_BYTES
    ) -> ticket_file.TicketSummary:
        """Returns the contents of a ticket file and the sizes of its parts.

        Args:
            path: String or path.
            max_bytes: Integer, see `load`. No arrays are created, so this
                takes much less memory than loading the same file.

        Returns:
            `ticket_file.TicketSummary`, which can be printed.

        Raises:
            OSError: If there is no such file.
            ValueError: If the file is not a ticket, is damaged, or needs more
                memory.
        """
        return ticket_file.TicketSummary.read(path, max_bytes)


def _config(model):
    """Returns the config of a model's network, or `None` if it is unknown."""
    network = wrapped_by(model)
    return None if find_gem_layers(network) else config_of(network)


def _copy(variable):
    return np.array(ops.convert_to_numpy(variable))
