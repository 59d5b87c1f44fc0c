"""A replacement for RLinf's ``torch_platform``, which is None on a machine without accelerators."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

import torch
from rlinf.scheduler import Worker


class _NoStream:
    def wait_stream(self, other: Any) -> None: ...
    def synchronize(self) -> None: ...


class CpuPlatform:
    """The functions of ``torch.cuda`` that RLinf calls, for a CPU as the only device; nothing is asynchronous."""

    Stream = torch.cpu.Stream

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def is_initialized() -> bool:
        """Always True. Tensors then refuse to record the streams below, so RLinf keeps the tensors alive itself."""
        return True

    @staticmethod
    def device_count() -> int:
        return 1

    @staticmethod
    def current_device() -> torch.device:
        return torch.device("cpu")

    @staticmethod
    def set_device(device: Any) -> None: ...

    @staticmethod
    def synchronize(device: Any = None) -> None: ...

    @staticmethod
    def empty_cache() -> None: ...

    @staticmethod
    def ipc_collect() -> None: ...

    @staticmethod
    def current_stream(device: Any = None) -> _NoStream:
        return _NoStream()

    @staticmethod
    def stream(stream: Any) -> AbstractContextManager:
        """torch's own context for CPU streams, which does nothing."""
        return torch.cpu.stream(stream)

    @staticmethod
    def get_rng_state(device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    @staticmethod
    def set_rng_state(state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    @staticmethod
    def memory_allocated(device: Any = None) -> int:
        return 0  # not counted

    max_memory_allocated = memory_reserved = memory_allocated


class OnAnyDevice:
    """Mixin, placed before an RLinf worker class, that makes the worker usable without an accelerator."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if Worker.torch_platform is None:
            Worker.torch_platform = CpuPlatform
            Worker.torch_device_type = "cpu"
        # RLinf has set these attributes of the instance before it loads extensions.
        self.torch_platform, self.torch_device_type = Worker.torch_platform, Worker.torch_device_type
        with ExitStack() as stack:
            if Worker.torch_platform is CpuPlatform:  # the SFT worker calls torch.cuda directly
                for name in ("set_device", "current_device"):
                    stack.enter_context(patch.object(torch.cuda, name, getattr(CpuPlatform, name)))
            super().__init__(*args, **kwargs)

    def wait_until_made(self) -> None:
        """No-op whose result is available once the worker is created; launching a group does not wait for that."""
