"""environment.json: versions and device, which results depend on besides the spec. No clock, no host name."""

import functools
import hashlib
import importlib.metadata
import importlib.util
import platform
from pathlib import Path
from typing import Any

import torch

from moeframe.assembly import resolve_device
from moeframe.storage.atomic import as_json, write_file
from moeframe.storage.run_folder import RunFolder

_OWN = ("moeframe", "moeframe_builtin", "moeframe_pretrained")
_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "torch-fidelity", "lpips")

NOT_INSTALLED = "not installed"


def describe_environment(device_name: str) -> dict[str, Any]:
    """Return the versions of moeframe, Python and the packages that compute results, and the device."""
    device = resolve_device(device_name)
    facts: dict[str, Any] = {
        "moeframe": installed_version("moeframe") or NOT_INSTALLED,
        "moeframe_source": source_hash(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "torch_threads": torch.get_num_threads(),
    }
    for package in _PACKAGES:
        facts[package] = installed_version(package) or NOT_INSTALLED
    return facts


def write_environment(folder: RunFolder, device_name: str) -> None:
    """Write environment.json of a run."""
    write_file(folder.environment, as_json(describe_environment(device_name)))


@functools.cache
def source_hash() -> str:
    """Return the first 12 digits of the SHA-256 of moeframe's Python files, because one version covers many commits.

    `moeframe doctor` prints that of an installation.
    """
    digest = hashlib.sha256()
    for package in _OWN:
        found = importlib.util.find_spec(package)
        for folder in found.submodule_search_locations or [] if found else []:
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(folder).as_posix()}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def installed_version(package: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"
