"""What a measurement ran on, and what every benchmark's command line needs. No idea of what is measured."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

HERE = Path(__file__).parent
# Without it what is recorded lies between the freed activations and keeps the C library from giving their memory back:
# fastai's process grows by 15 to 170 kB a step then, from run to run, of which it holds 1 kB
PLAIN_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "100000"}


def machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    name = names[0] if names else platform.machine()
    return f"{name} x {os.cpu_count()} ({torch.backends.cpu.get_cpu_capability()}), {platform.system()}"


def revision() -> str:
    """Return the commit, and whether there is more than is committed."""
    if shutil.which("git") is None:
        return "an unknown revision"
    command = ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or "an unknown revision"


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def why_absent(package: str) -> str | None:
    """Return why a package ("": none is needed) cannot be measured here, None where it can."""
    try:
        if package:
            importlib.import_module(package)
    except ModuleNotFoundError:
        return "not installed"
    except Exception as error:
        return f"does not import here ({type(error).__name__})"
    return None


def names_among(known: Iterable[str]) -> Callable[[str], list[str]]:
    def parse_names(text: str) -> list[str]:
        names = text.split(",")
        unknown = set(names) - set(known)
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(known)}")
        return names

    return parse_names


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
