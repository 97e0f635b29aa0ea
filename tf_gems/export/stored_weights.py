"""Sparse weights as assets of a SavedModel, which fill variables at loading.

The gap code (`gap_code`) of kept weights is stored in separate files, and a
function of the SavedModel reads them into variables. TensorFlow initializes
lookup tables in the same way: `tf.saved_model.load` calls the function, and
TensorFlow Serving runs the init operation of the SavedModel. As constants, the
weights would be copied with the graph, and limited to 2 GB.
"""

import contextlib
import hashlib
import math
import os

import numpy as np

from tf_gems.export import gap_code
from tf_gems.export.tracing import nodes

# Arrays are expanded together up to this number of elements, so that loading
# takes little memory beside the variables.
_TOGETHER = 1 << 22
_PREFIX = "weights_"


class _Group:
    """Arrays of one dtype that are coded as one, and the files of the code."""

    def __init__(self, variables, prefix):
        self.variables = variables
        [self.dtype] = {v.dtype for v in variables.values()}
        self.sizes = [_size(variable) for variable in variables.values()]
        self.gap_type = gap_code.smallest_type(self._parts(), self.dtype.size)
        self.files = [f"{prefix}.values", f"{prefix}.gaps"]

    def _parts(self):
        return (variable.numpy() for variable in self.variables.values())

    def write(self, digest):
        """Writes the files, adds them to a digest, and makes them assets."""
        import tensorflow as tf

        coded = gap_code.encode(self._parts(), self.gap_type)
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(open(f, "wb")) for f in self.files]
            for arrays in coded:
                for array, file in zip(arrays, files, strict=True):
                    little = array.dtype.newbyteorder("<")
                    data = array.astype(little, copy=False).tobytes()
                    digest.update(data)
                    file.write(data)
        self.files = [tf.saved_model.Asset(path) for path in self.files]

    def read(self):
        """Returns the arrays, flat tensors that the graph reads."""
        import tensorflow as tf

        values, gaps = (
            tf.io.decode_raw(tf.io.read_file(file.asset_path), dtype)
            for file, dtype in zip(
                self.files, (self.dtype, self.gap_type), strict=True
            )
        )
        places = tf.cumsum(tf.cast(gaps, tf.int32))[:, tf.newaxis]
        whole = tf.scatter_nd(places, values, [sum(self.sizes)])
        return tf.split(whole, self.sizes) if len(self.sizes) > 1 else [whole]


def stored_weights(variables, folder):
    """Writes the kept values of variables by name, and returns what reads them.

    The files in the folder are copied into a SavedModel when it is saved. The
    object that is saved must track the `assets` of what is returned.
    """
    import tensorflow as tf

    digest, groups = hashlib.sha256(), []
    for number, members in enumerate(_grouped(variables)):
        group = _Group(members, os.path.join(folder, f"weights_{number}"))
        group.write(digest)
        groups.append(group)
    names = [name for group in groups for name in group.variables]
    shapes = [tuple(variables[name].shape) for name in names]
    digest.update(repr(shapes).encode())
    prefix = f"{_PREFIX}{digest.hexdigest()[:24]}"
    numbers = {name: number for number, name in enumerate(names)}

    class StoredWeights(tf.saved_model.experimental.TrackableResource):
        """The variables, and how they are filled.

        They are named by their content. Variables of a loaded SavedModel live
        as long as the process, as users may keep only a signature, which does
        not own them.
        """

        assets = [file for group in groups for file in group.files]

        def _create_resource(self):
            return self.handle(names[0])

        def _initialize(self):
            filled = []
            for group in groups:
                with tf.control_dependencies(filled):  # one after the other
                    filled = self._fill(group)

        def _fill(self, group):
            return [
                tf.raw_ops.AssignVariableOp(
                    resource=self.handle(name),
                    value=tf.reshape(part, group.variables[name].shape),
                )
                for name, part in zip(
                    group.variables, group.read(), strict=True
                )
            ]

        def handle(self, name):
            """Returns the handle of one variable, in the present graph."""
            return tf.raw_ops.VarHandleOp(
                dtype=variables[name].dtype,
                shape=variables[name].shape,
                shared_name=f"{prefix}_{numbers[name]}",
            )

        def bytes_per_value(self, name):
            """Returns the bytes of one kept value of an array, and its gap."""
            [group] = [g for g in groups if name in g.variables]
            gap_bytes = np.dtype(group.gap_type).itemsize
            return variables[name].dtype.size + gap_bytes

    return StoredWeights()


def free(function):
    """Frees the variables of a loaded SavedModel, given its signature.

    The SavedModel can no longer run.
    """
    import tensorflow as tf

    for node in nodes(function.graph.as_graph_def()):
        name = node.attr["shared_name"].s.decode()
        if node.op == "VarHandleOp" and name.startswith(_PREFIX):
            handle = tf.raw_ops.VarHandleOp(
                dtype=tf.as_dtype(node.attr["dtype"].type),
                shape=tf.TensorShape(node.attr["shape"].shape),
                shared_name=name,  # TensorFlow makes it differ at each loading
            )
            tf.raw_ops.DestroyResourceOp(
                resource=handle, ignore_lookup_error=True
            )


def _grouped(variables):
    """Yields dicts of variables of one dtype, up to some number of elements."""
    for dtype in sorted({v.dtype.name for v in variables.values()}):
        group, size = {}, 0
        for name, variable in variables.items():
            if variable.dtype.name != dtype:
                continue
            if group and size + _size(variable) > _TOGETHER:
                yield group
                group, size = {}, 0
            group[name] = variable
            size += _size(variable)
        yield group


def _size(variable):
    return math.prod(variable.shape)
