"""Functions of tensors as CUDA graphs: one launch per call, with no Python or host work between the kernels."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn

KEPT_GRAPHS = 8
Result = TypeVar("Result")


class _Captured(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor, ...]
    result: Any


class Graphs:
    """Captures a function as a CUDA graph once for every shape of its inputs, and then replays it. Not thread-safe.

    All graphs share one memory pool: they never run at the same time. The `KEPT_GRAPHS` that were used last are kept.
    On a CPU there are no graphs, and the function itself runs.

    Attributes:
        device: where inputs are copied to.
        warmup_seconds: time spent so far on compiling kernels and capturing graphs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.warmup_seconds = device, 0.0
        self.pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None
        self._captured: OrderedDict[tuple, _Captured] = OrderedDict()

    def __len__(self) -> int:
        return len(self._captured)

    def __call__(self, name: tuple, inputs: Sequence[Tensor], run: Callable[[tuple[Tensor, ...]], Result]) -> Result:
        """Result of `run` for inputs on any device; its tensors are overwritten by the next call.

        Args:
            name: tells functions apart, and whatever the function depends on besides the inputs.
            inputs: their shapes and dtypes are part of the graph.
            run: is called when a graph is captured, with inputs on the device. It must not wait for the device.
        """
        if self.pool is None:
            return run(tuple(tensor.to(self.device) for tensor in inputs))
        key = (name, *((tensor.dtype, tuple(tensor.shape)) for tensor in inputs))
        with torch.cuda.device(self.device):
            captured = self._captured.pop(key, None) or self._capture(inputs, run)
            self._captured[key] = captured
            if len(self._captured) > KEPT_GRAPHS:
                self._captured.popitem(last=False)
            for graph_input, value in zip(captured.inputs, inputs, strict=True):
                graph_input.copy_(value, non_blocking=True)
            captured.graph.replay()
            return cast(Result, captured.result)

    def _capture(self, inputs: Sequence[Tensor], run: Callable[[tuple[Tensor, ...]], Any]) -> _Captured:
        start = time.perf_counter()
        own = tuple(tensor.to(self.device, copy=True) for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles the kernels, and lets libraries allocate their workspaces
                run(own)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            result = run(own)
        self.warmup_seconds += time.perf_counter() - start
        return _Captured(graph, own, result)


class Addresses:
    """Where the parameters of a module lie. Graphs read them there, so they may change in place, but not move."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.found = module, [parameter.data_ptr() for parameter in module.parameters()]

    def check(self) -> None:
        """Raises RuntimeError if a parameter has moved to other memory, or parameters have come or gone."""
        if [parameter.data_ptr() for parameter in self.module.parameters()] != self.found:
            raise RuntimeError("parameters have moved in memory; the graphs that read them need to be made again")
