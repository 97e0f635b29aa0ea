"""The date, machine and versions that a measured result depends on."""

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
        **_accelerators(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "backend": keras.backend.backend(),
        **_versions(),
    }


def _accelerators():
    """Returns the names of GPUs and TPUs, if the backend has any."""
    if keras.backend.backend() == "jax":
        import jax

        devices = [d for d in jax.devices() if d.platform != "cpu"]
        names = [device.device_kind for device in devices]
    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        details = tf.config.experimental.get_device_details
        devices = tf.config.list_physical_devices("GPU")
        names = [
            details(device).get("device_name", "GPU") for device in devices
        ]
    else:
        names = []
    return {"accelerators": names} if names else {}


def _versions():
    """Returns the versions of Keras, and of what is installed to run it."""
    versions = {}
    for package in ("keras", "tensorflow", "jax"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # the core runs on one backend without the other
    return versions
