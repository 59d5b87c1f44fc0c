"""Ask the EGL driver who it is, without importing anything. Run as a file, in a process of its own: a broken driver may
crash the process that loads it. Prints ``vendor version`` of the first device that can be initialised, as MuJoCo does.
"""

from __future__ import annotations

import ctypes

EGL_PLATFORM_DEVICE_EXT = 0x313F
EGL_VENDOR, EGL_VERSION = 0x3053, 0x3054
MAX_DEVICES = 16


def main() -> None:
    """Print the first usable device, or exit with a message."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError as error:
        raise SystemExit(str(error)) from None
    egl.eglGetProcAddress.restype = ctypes.c_void_p
    egl.eglQueryString.restype = ctypes.c_char_p
    egl.eglQueryString.argtypes = [ctypes.c_void_p, ctypes.c_int]
    egl.eglInitialize.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    pointer = ctypes.c_void_p
    addresses = [egl.eglGetProcAddress(name) for name in (b"eglQueryDevicesEXT", b"eglGetPlatformDisplayEXT")]
    if not all(addresses):
        raise SystemExit("libEGL lacks the device extensions")
    query_devices = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, pointer, pointer)(addresses[0])
    get_display = ctypes.CFUNCTYPE(pointer, ctypes.c_uint, pointer, pointer)(addresses[1])
    devices, count = (pointer * MAX_DEVICES)(), ctypes.c_int()
    query_devices(MAX_DEVICES, devices, ctypes.byref(count))
    for device in devices[: count.value]:
        display = get_display(EGL_PLATFORM_DEVICE_EXT, device, None)
        if display and egl.eglInitialize(display, None, None):
            vendor, version = (egl.eglQueryString(display, name).decode() for name in (EGL_VENDOR, EGL_VERSION))
            print(f"{vendor}, EGL {version}")
            return
    raise SystemExit(f"none of {count.value} EGL devices can be initialised")


if __name__ == "__main__":
    main()
