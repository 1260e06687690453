"""``scene4d doctor``: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from scene4d.cli.parse import parse

_SIMD = ("sse4.2", "avx", "avx2", "fma", "f16c", "avx512f", "neon", "sve")
_CORE = (
    "numpy",
    "torch",
    "numba",
    "scipy",
    "safetensors",
    "pillow",
    "trimesh",
    "tyro",
    "jaxtyping",
)
_THREADING = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}
"""Numba's parallel layers, in the order in which it takes them, and their modules."""


@dataclass(frozen=True, kw_only=True)
class DoctorArgs:
    """Shows which back ends and extras work here, and why the others do not."""

    json: bool = False
    """Print JSON on stdout instead of text."""


def main(argv: list[str]) -> None:
    """Runs the verb."""
    args = parse(DoctorArgs, argv, prog="scene4d doctor")
    report = examine()
    print(json.dumps(report, indent=2) if args.json else as_text(report))


def examine() -> dict[str, Any]:
    """Plain data about this machine; ``advice`` lists what could be better, with the way there."""
    from scene4d.rendering.backends import probe_backends

    backends = [asdict(status) for status in probe_backends()]
    numba = numba_state()
    extras = extras_state(metadata.requires("scene4d") or [])
    machine = machine_state()
    report: dict[str, Any] = {
        "python": {
            "version": platform.python_version(),
            "platform": platform.platform(),
            "executable": sys.executable,
        },
        "packages": {name: installed_version(name) for name in ("scene4d", *_CORE)},
        "torch": torch_state(),
        "machine": machine,
        "numba": numba,
        "backends": backends,
        "extras": extras,
    }
    report["advice"] = advice(backends, numba, machine)
    return report


def torch_state() -> dict[str, Any]:
    """torch's build, threads and GPUs."""
    import torch

    gpus = []
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"version": torch.__version__, "threads": torch.get_num_threads(), "cuda_gpus": gpus}


def machine_state() -> dict[str, Any]:
    """Cores, vector instructions, memory and disk (GB)."""
    from llvmlite import binding

    from scene4d.memory import available_ram_bytes

    features = binding.get_host_cpu_features()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": binding.get_host_cpu_name(),
        "cores": cores,
        "simd": [name for name in _SIMD if features.get(name)],
        "memory_total_gb": _gb(total_ram_bytes()),
        "memory_available_gb": _gb(available_ram_bytes()),
        "disk_free_gb": _gb(float(shutil.disk_usage(Path.cwd()).free)),
    }


def total_ram_bytes() -> float | None:
    """The machine's memory; None where the system does not say."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, OSError, ValueError):
        return None


def numba_state() -> dict[str, Any]:
    """Where Numba keeps compiled kernels, whether it may write there, and its parallel layer."""
    try:
        from numba import config
    except ImportError as error:
        return {"version": None, "problem": str(error)}
    layers = {name: _layer_problem(module) for name, module in _THREADING.items()}
    usable = [name for name, problem in layers.items() if problem is None]
    folder = cache_folder(config.CACHE_DIR)
    return {
        "version": installed_version("numba"),
        "threads": config.NUMBA_NUM_THREADS,
        "threading_layers": {name: problem or "ok" for name, problem in layers.items()},
        "threading_layer": usable[0] if usable else None,
        "cache_folder": str(folder),
        "cache_writable": _writable(folder),
    }


def cache_folder(configured: str) -> Path:
    """Where Numba caches this package: NUMBA_CACHE_DIR, beside the sources, or the user's cache."""
    if configured:
        return Path(configured)
    beside = Path(find_spec("scene4d").origin).parent  # type: ignore[union-attr, arg-type]
    if _writable(beside):
        return beside
    from numba.misc.appdirs import AppDirs

    return Path(AppDirs(appname="numba", appauthor=False).user_cache_dir)


def _layer_problem(module: str) -> str | None:
    """Why one of Numba's parallel layers cannot be loaded; None if it can."""
    try:
        __import__(f"numba.np.ufunc.{module}")
    except ImportError as error:
        return str(error)
    return None


def _writable(folder: Path) -> bool:
    """Whether files can be made in ``folder``, or in the first folder above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return os.access(folder, os.W_OK)


def extras_state(requirements: Sequence[str]) -> list[dict[str, Any]]:
    """Each extra of the package, what it needs here, and whether that is installed."""
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", requirement)
        name = re.match(r"[\w.-]+", requirement)
        if extra is None or name is None or not applies_here(requirement):
            continue
        package = name.group()
        version = installed_version(package)
        extras.setdefault(extra.group(1), {})[package] = version
    return [
        {
            "name": extra,
            "available": all(version is not None for version in packages.values()),
            "packages": packages,
            "install": f"pip install 'scene4d[{extra}]'",
        }
        for extra, packages in extras.items()
    ]


def applies_here(requirement: str) -> bool:
    """Whether a requirement's platform marker fits this machine."""
    found = re.search(r"sys_platform\s*(==|!=)\s*['\"](\w+)['\"]", requirement)
    return found is None or (sys.platform == found.group(2)) == (found.group(1) == "==")


def installed_version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def advice(
    backends: Sequence[dict[str, Any]], numba: dict[str, Any], machine: dict[str, Any]
) -> list[str]:
    """What could be better, each with what to do."""
    lines = []
    if not any(b["available"] for b in backends if b["name"] == "numba"):
        lines.append("splats render slowly on this CPU: the Numba back end does not load (above)")
    if numba.get("cache_writable") is False:
        lines.append(
            f"kernels are compiled anew in each process, because {numba['cache_folder']} is not "
            "writable: set NUMBA_CACHE_DIR to a folder that is"
        )
    if numba.get("version") and numba.get("threading_layer") is None:
        lines.append("Numba finds no parallel layer: pip install tbb")
    elif numba.get("threading_layer") == "workqueue":
        lines.append(
            "Numba's parallel layer is workqueue, which breaks when two threads use it at once: "
            "pip install tbb"
        )
    if (machine["disk_free_gb"] or 1e9) < 2:
        lines.append(f"only {machine['disk_free_gb']:.1f} GB of disk are free here")
    if (machine["memory_available_gb"] or 1e9) < 2:
        lines.append(
            f"only {machine['memory_available_gb']:.1f} GB of memory are free: use "
            "--downscale-factor, and --max-num-gaussians for splats"
        )
    return lines


def as_text(report: dict[str, Any]) -> str:
    """The report for people."""
    python, torch, machine = report["python"], report["torch"], report["machine"]
    packages = report["packages"]
    lines = [
        f"scene4d {packages['scene4d']}, Python {python['version']} on {python['platform']}",
        "packages: " + ", ".join(f"{k} {v}" for k, v in packages.items() if k != "scene4d"),
        f"torch: {torch['threads']} threads; "
        f"GPU: {', '.join(torch['cuda_gpus']) or 'none that torch can use'}",
        f"cpu: {machine['cpu']}, {machine['cores']} cores, {' '.join(machine['simd'])}",
        f"memory: {_or_unknown(machine['memory_available_gb'])} GB free of "
        f"{_or_unknown(machine['memory_total_gb'])} GB; disk: "
        f"{_or_unknown(machine['disk_free_gb'])} GB free here",
        _numba_text(report["numba"]),
        "",
        "splat rasteriser:",
    ]
    for status in report["backends"]:
        mark = "ok" if status["available"] else "--"
        lines.append(f"  {mark}  {status['name']:<10}{status['device']:<6}{status['reason']}")
    lines += ["", "extras:"]
    for extra in report["extras"]:
        mark = "ok" if extra["available"] else "--"
        have = ", ".join(f"{k} {v or 'missing'}" for k, v in extra["packages"].items())
        how = "" if extra["available"] else f"; {extra['install']}"
        lines.append(f"  {mark}  {extra['name']:<10}{have}{how}")
    lines += ["", *(f"advice: {line}" for line in report["advice"] or ["nothing to do"])]
    return "\n".join(lines)


def _numba_text(numba: dict[str, Any]) -> str:
    if numba["version"] is None:
        return f"numba: does not import ({numba['problem']})"
    writable = "writable" if numba["cache_writable"] else "not writable"
    return (
        f"numba: {numba['threads']} threads through {numba['threading_layer']}; compiled kernels "
        f"in {numba['cache_folder']} ({writable})"
    )


def _gb(count: float | None) -> float | None:
    return None if count is None else round(count / 1e9, 2)


def _or_unknown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.1f}"
