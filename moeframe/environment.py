"""What a result depends on besides its spec: versions and device. No clock, no host name."""

import importlib.metadata
import platform
from typing import Any

import torch

from moeframe.assembly import resolve_device

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-image", "scikit-learn", "torch-fidelity", "lpips")


def describe_environment(device_name: str) -> dict[str, Any]:
    """Versions of moeframe, Python and the packages behind the figures, and the device."""
    device = resolve_device(device_name)
    facts: dict[str, Any] = {
        "moeframe": installed_version("moeframe") or "not installed",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "torch_threads": torch.get_num_threads(),
    }
    for package in _PACKAGES:
        facts[package] = installed_version(package) or "not installed"
    return facts


def installed_version(package: str) -> str | None:
    """Version of an installed distribution, or None."""
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
