"""The machine, the versions and the memory of a process."""

import ctypes
import gc
import importlib.metadata
import importlib.util
import os
import pathlib
import platform

PACKAGES = (
    "keras_rnnx",
    "tensorflow",
    "keras",
    "torch",
    "jax",
    "jaxlib",
    "onnxruntime",
    "onnx",
    "numpy",
)
STATUS = pathlib.Path("/proc/self/status")


def cores():
    """The cores that this process may use: every peer gets all of them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def describe():
    return {"cpu": cpu_model(), "cores": cores(), "system": platform.platform(), "load": load()}


def load():
    """Processes that wanted a core over the last minute: above 0, others work here too."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def cpu_model():
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def busy():
    """Seconds that all cores together have worked since the machine started; None off Linux."""
    file = pathlib.Path("/proc/stat")
    if not file.exists():
        return None
    user, nice, system, _idle, _waiting, *others = map(int, file.read_text().split()[1:9])
    return (user + nice + system + sum(others)) / os.sysconf("SC_CLK_TCK")


def versions():
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "source tree" if importlib.util.find_spec(package) else "not installed"


def peak_memory(step):
    """Bytes that `step` takes at its peak, above what the process holds before; None off Linux."""
    if not STATUS.exists():
        return None
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc: what earlier calls freed would hide what this one takes
        trim(0)
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # starts the high-water mark anew
    before = resident("VmRSS")
    step()
    return max(0, resident("VmHWM") - before)


def resident(field):
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
