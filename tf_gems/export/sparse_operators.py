"""Reports which layers of a TFLite file run faster with zeros."""

import platform
from pathlib import Path

from tf_gems.export import flatbuffer
from tf_gems.export import xnnpack


def sparse_operators(path):
    """Returns which layers of a TFLite file run faster with zeros.

    The file is read, not run. The result describes what XNNPACK, the engine of
    LiteRT, does with such a layer; it is not a measurement. For a file that
    cannot be read, a single row contains the reason.

    Args:
        path: String or path of a TFLite file, or its bytes.

    Returns:
        List of dicts, one for each operator with weights: `layer`, the name of
        its weights in the file; `operator`; `zeros`, their fraction;
        `runs_sparse`: `"everywhere"`, `"without AVX"` (on ARM, and on x86
        without AVX) or `"nowhere"`; and `reason`, a sentence.

    Example:

    >>> [row] = sparse_operators(b"not a file")
    >>> row["runs_sparse"], row["reason"][:19]
    ('nowhere', 'It cannot be read: ')
    """
    try:
        data = path if isinstance(path, bytes) else Path(path).read_bytes()
        model = flatbuffer.read(data)
        return [row for graph in model.subgraphs for row in _rows(model, graph)]
    except Exception as error:  # a report must not stop the export
        reason = f"It cannot be read: {type(error).__name__} {error}"
        return [_row("", "", 0.0, "nowhere", reason)]


def host_has_sparse_kernels():
    """Whether XNNPACK uses its sparse kernels here; `None` if it is unknown."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64") or machine.startswith("armv"):
        return True
    if machine not in ("x86_64", "amd64"):
        return None
    try:
        with open("/proc/cpuinfo") as file:
            flags = next(line for line in file if line.startswith("flags"))
    except (OSError, StopIteration):
        return None
    return "avx" not in flags.split()


def _rows(model, graph):
    sources = flatbuffer.stored(model, graph)
    reasons = xnnpack.Graph(model, graph).reasons_by_kernel()
    rows = []
    for operator in graph.operators:
        name = flatbuffer.operator_name(model, operator)
        position = flatbuffer.WEIGHTS.get(name)
        if position is None or position >= len(operator.inputs):
            continue
        read = int(operator.inputs[position])
        tensor = graph.tensors[sources.get(read, read)]
        value = flatbuffer.constant(model, tensor)
        if value is None or value.ndim < 2:
            continue
        where, reason = "nowhere", None
        is_sparse = tensor.sparsity is not None
        if value.all():
            reason = "It has no zeros."
        elif not is_sparse:
            reason = "Its weights are stored densely."
        elif read not in sources:
            where = "everywhere"
            reason = "LiteRT's own kernel skips blocks of zeros."
        elif value.dtype.kind != "f":
            reason = (
                "8-bit weights have no sparse kernel and are expanded "
                "when loaded."
            )
        elif name == "FULLY_CONNECTED":
            reason = (
                "Expanded when loaded; optimize='latency' stores it in blocks "
                "if it has enough zeros."
            )
        elif name != "CONV_2D" or max(value.shape[1:3]) > 1:
            reason = (
                "Expanded when loaded, because XNNPACK has sparse kernels "
                "for 1x1 convolutions only."
            )
        elif reasons[sources[read]] is None:
            where = "without AVX"
            reason = (
                "XNNPACK's sparse kernel, which is disabled on x86 with AVX."
            )
        else:
            why = reasons[sources[read]]
            reason = f"Expanded when loaded, because {why}."
        zeros = float((value == 0).mean())
        layer = tensor.name.decode("utf-8", "replace")
        rows.append(_row(layer, name, zeros, where, reason))
    return rows


def _row(layer, operator, zeros, runs_sparse, reason):
    return {
        "layer": layer,
        "operator": operator,
        "zeros": zeros,
        "runs_sparse": runs_sparse,
        "reason": reason,
    }
