"""What a measured result depends on besides its settings."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import keras


def provenance():
    """Returns the date, the machine and the versions, as JSON values.

    Example:

    >>> sorted(provenance())[:3]
    ['backend', 'cores', 'date']
    """
    processor = platform.processor() or platform.machine()
    names = Path("/proc/cpuinfo")
    if names.exists():
        lines = names.read_text("utf-8").splitlines()
        models = [x.split(":", 1)[1] for x in lines if "model name" in x]
        processor = models[0].strip() if models else processor
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        **{
            package: importlib.metadata.version(package)
            for package in ("keras", "tensorflow")
        },
    }
