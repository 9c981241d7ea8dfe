"""Where numbers come from: versions, machine, commit. What the bits may depend on, written beside them."""

import platform
import resource
import subprocess
import sys
from importlib import metadata
from typing import Any

import torch

INPUTS: dict[str, str] = {}  # what this process has read, by name, and its digest; a run begins with none


def note_input(name: str, digest: str) -> None:
    """Note that something was read on which the numbers rest; records keep the list."""
    INPUTS[name] = digest


def environment() -> dict[str, Any]:
    """What the bits may depend on: versions, device, threads, instruction set, commit."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in ("uqlib", "torch", "numpy", "timm", "scikit-learn")},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the checkout in the current folder, with `+` where files differ from it; None outside of one."""
    try:
        head = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if dirty.stdout else "")


def peak_memory_mb() -> int:
    """The most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024**2 if sys.platform == "darwin" else 1024))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
