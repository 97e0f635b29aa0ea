"""Files that are whole or not there."""

import contextlib
import os
from pathlib import Path


@contextlib.contextmanager
def replacing(path):
    """Opens a binary file that takes the place of `path` once it is whole.

    It is written beside its target, brought to disk, and renamed. Whatever
    happens meanwhile, there is either the old file or the new one.

    Args:
        path: String or path.

    Yields:
        Binary file, open for writing.

    Raises:
        OSError: If it cannot be written, for lack of space, say; an older
            file is left as it is.

    Example:

    ```python
    with replacing("results.json") as file:
        file.write(text.encode())
    ```
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial-{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        kept = "is left as it was" if path.exists() else "is not there"
        reason = error.strerror or error
        raise OSError(
            error.errno,
            f"'{path}' could not be written: {reason}. No part of it is left "
            f"behind, and the file itself {kept}. Make room, and start again.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
