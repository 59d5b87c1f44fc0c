"""Loads batches ahead of the training, in a thread of this process or in worker processes.

The workers are those of `torch.utils.data.DataLoader`, which keeps the order of the steps, prefetches a bounded number
of batches, passes tensors through shared memory, copies them to pinned memory for a GPU, and notices a dead worker.
Here its dataset maps a step to a batch: a worker makes the whole batch of a step, which is a function of (seed, step),
so neither the number of workers nor a resumption changes a byte. A batch is sent in one piece (`packing`), as the file
descriptor of unlinked memory, so nothing stays in /dev/shm if a process is killed.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing import active_children, connection
from multiprocessing.process import BaseProcess
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.sft_schema import BATCHES_AHEAD
from rlinf_isaac.data.mixture import AnyDataset
from rlinf_isaac.data.subset import Subset
from rlinf_isaac.engines.local.sft.batches import Rows, TrainingBatch, load_batch
from rlinf_isaac.engines.local.sft.packing import Packed, pack, unpack
from rlinf_isaac.engines.local.sft.task_frames import AnyProcessor
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError


class BatchLoader:
    """Context manager that loads the batches of a training in order, from step `first_step` (0-based) on.

    Args:
        config: config of the job; ``sft.loader_workers`` is the number of processes, 0 for a thread of this process.
        dataset: the frames to train on.
        processor: converts frames to tensors.
        first_step: step of the first batch.
        rows: rows to load of each batch.

    Attributes:
        waited_s: seconds that `get` has waited since this was last set to 0.
    """

    def __init__(
        self, config: JobConfig, dataset: AnyDataset | Subset, processor: AnyProcessor, first_step: int, rows: Rows
    ) -> None:
        self.waited_s = 0.0
        self._batches: Generator[TrainingBatch, None, None]
        steps, workers = range(first_step, config.sft.steps), config.sft.loader_workers
        if workers:
            load = partial(load_batch, dataset.for_one_of(workers), processor, config, rows=rows)
            self._batches = _in_processes(load, steps, workers, pin=config.compute.device.startswith("cuda"))
        else:
            self._batches = _in_a_thread(partial(load_batch, dataset, processor, config, rows=rows), steps)
        self._next = first_step

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._batches.close()

    def get(self, step: int) -> TrainingBatch:
        """The batch of `step` (0-based), which must follow the previous call's step.

        Raises:
            RlinfIsaacError: a worker process died. Exceptions of a worker are raised here as well.
        """
        assert step == self._next
        begun = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - begun
        self._next += 1
        return batch


Load = Callable[[int], TrainingBatch]


def _in_a_thread(load: Load, steps: range) -> Generator[TrainingBatch, None, None]:
    """Load the next batch in a thread while the training uses the current one."""
    with ThreadPoolExecutor(1, "batch") as reader:
        upcoming = [reader.submit(load, step) for step in steps[:1]]
        for step in steps:
            batch = upcoming.pop().result()
            if step + 1 in steps:
                upcoming.append(reader.submit(load, step + 1))
            yield batch


def _in_processes(load: Load, steps: range, workers: int, *, pin: bool) -> Generator[TrainingBatch, None, None]:
    loader = DataLoader(
        _Steps(load),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=BATCHES_AHEAD,
        collate_fn=_as_it_is,
        worker_init_fn=_begin,
        multiprocessing_context="spawn",
        pin_memory=pin,
        generator=torch.Generator(),  # so that DataLoader does not advance the global generator
    )
    others, on_child = set(active_children()), signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if on_child is not None and threading.current_thread() is threading.main_thread():
        # Restore the handler that DataLoader has replaced: it would raise when a worker dies, even while this process
        # writes a checkpoint.
        signal.signal(signal.SIGCHLD, on_child)
    processes = set(active_children()) - others
    try:
        for _ in steps:
            yield _received(batches, processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


def _received(batches: Iterator[Packed | RlinfIsaacError], processes: set[BaseProcess]) -> TrainingBatch:
    try:
        batch = next(batches)
    except Exception as error:
        # The sockets of a dying worker may close before its exit code is available, so wait for it.
        ended = connection.wait([process.sentinel for process in processes], timeout=5)
        for process in (process for process in processes if process.sentinel in ended):
            process.join()
            raise RlinfIsaacError(_died(process)) from error
        raise
    if isinstance(batch, RlinfIsaacError):
        raise batch
    return unpack(batch)


def _died(process: BaseProcess) -> str:
    code = process.exitcode or 0
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return (
        f"a process that loads batches (pid {process.pid}) {how}. The last checkpoint is kept, and the same command "
        "resumes from it; if memory, or shared memory in /dev/shm, is short, use a smaller sft.loader_workers, or 0"
    )


class _Steps(Dataset):
    """Dataset that maps a step to its packed batch. An `RlinfIsaacError` is returned, not raised, because DataLoader
    would convert it to another exception."""

    def __init__(self, load: Load) -> None:
        self.load = load

    def __getitem__(self, step: int) -> Packed | RlinfIsaacError:
        try:
            return pack(self.load(step))
        except RlinfIsaacError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _begin(worker: int) -> None:
    follow_parent()
    torch.set_num_threads(1)  # the workers run in parallel already
