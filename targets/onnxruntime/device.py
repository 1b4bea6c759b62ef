"""Whether this machine has a CUDA device, and which, asked of the driver itself."""

from __future__ import annotations

import ctypes
import sys

_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"


def missing_device(library: str = _LIBRARY) -> str | None:
    """Why there is no CUDA device to run on, or None if there is one.

    Asks the driver (`cuInit`, `cuDeviceGetCount` of the CUDA driver API), which needs no toolkit and takes
    milliseconds; ONNX Runtime itself would only print an error and go on without the device.
    """
    try:
        driver = ctypes.CDLL(library)
    except OSError:
        return f"there is no NVIDIA driver here ({library} cannot be loaded)"
    if status := driver.cuInit(0):
        return f"the NVIDIA driver does not start (cuInit gives {status})"
    count = ctypes.c_int(0)
    if status := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"the NVIDIA driver does not answer (cuDeviceGetCount gives {status})"
    return None if count.value else "the NVIDIA driver finds no device"


def device_uuid(ordinal: int = 0, library: str = _LIBRARY) -> str | None:
    """The UUID of a CUDA device, as NVML and `nvidia-smi -L` write it; None where there is no such device.

    CUDA numbers the devices that it sees (CUDA_VISIBLE_DEVICES, fastest first), NVML all of them in the order of their
    slots: only the UUID names the same one to both. `cuDeviceGetUuid` gives the whole
    GPU's also for a part of it (MIG).
    """
    if missing_device(library) is not None:
        return None
    driver = ctypes.CDLL(library)
    device, found = ctypes.c_int(0), (ctypes.c_ubyte * 16)()
    if driver.cuDeviceGet(ctypes.byref(device), ordinal) or driver.cuDeviceGetUuid(ctypes.byref(found), device):
        return None
    text = bytes(found).hex()
    return f"GPU-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


MAJOR, MINOR = 75, 76
"""`CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR`."""


def compute_capability(ordinal: int = 0, library: str = _LIBRARY) -> tuple[int, int] | None:
    """The compute capability of a CUDA device, such as (9, 0); None where there is no such device."""
    if missing_device(library) is not None:
        return None
    driver = ctypes.CDLL(library)
    device, major, minor = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_int(0)
    if driver.cuDeviceGet(ctypes.byref(device), ordinal):
        return None
    for found, attribute in ((major, MAJOR), (minor, MINOR)):
        if driver.cuDeviceGetAttribute(ctypes.byref(found), attribute, device):
            return None
    return major.value, minor.value
