"""What a result depends on beside its settings: versions, devices, source commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

PACKAGES = ("ncjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy")


def describe(devices) -> dict:
    """Versions of Python and the packages, the devices used, the git commit of the source where known."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "devices": sorted({device.device_kind for device in devices}),
        "device_count": len(devices),
        "commit": _commit(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit this package was imported from, with "-dirty" when files changed since; None outside a checkout."""
    source = Path(__file__).resolve().parents[2]
    if not (source / ".git").exists():
        return None
    command = ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
