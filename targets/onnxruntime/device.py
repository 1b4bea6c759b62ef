"""Whether this machine has a CUDA device, asked of the driver itself."""

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
