"""Batches, loaded before the training asks for them: by a thread of this process, or by processes of their own.

The processes are those of `torch.utils.data.DataLoader`: it keeps the order of the steps whoever is ready first, loads
a bounded number ahead, hands tensors over in shared memory, copies them to pinned memory for a GPU, and notices a dead
worker. Here it maps over steps, and a worker makes the whole batch of a step, which is a function of (seed, step): so
neither the number of workers nor a resumption changes a byte of it. A batch travels in one piece (`packing`), as the
descriptor of memory that has no name any more, so that nothing is left in /dev/shm, whoever is killed.
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
from rlinf_isaac.ground.child_process import follow_parent
from rlinf_isaac.ground.errors import RlinfIsaacError
from rlinf_isaac.pi0.policy import Processor


class BatchLoader:
    """The batches of a training from 0-based step `first_step` on, in order; a context manager.

    Args:
        config: of the job; ``sft.loader_workers`` is the number of processes, 0 for a thread of this one.
        dataset: what the batches are made of.
        processor: which makes tensors of them.
        first_step: the step of the first batch.
        rows: those of each batch that are wanted.

    Attributes:
        waited_s: seconds that `get` has waited since it was last set to 0.
    """

    def __init__(
        self, config: JobConfig, dataset: AnyDataset | Subset, processor: Processor, first_step: int, rows: Rows
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
        """The batch of 0-based `step`, the one after the last.

        Raises:
            RlinfIsaacError: a process died. What one of them raised is raised here.
        """
        assert step == self._next
        begun = time.perf_counter()
        batch = next(self._batches)
        self.waited_s += time.perf_counter() - begun
        self._next += 1
        return batch


Load = Callable[[int], TrainingBatch]


def _in_a_thread(load: Load, steps: range) -> Generator[TrainingBatch, None, None]:
    """Loads the next batch while the training has this one."""
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
        generator=torch.Generator(),  # the global one stays as it is
    )
    others, on_child = set(active_children()), signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if on_child is not None and threading.current_thread() is threading.main_thread():
        # It would raise wherever this process is when a worker dies, were it in the middle of writing a checkpoint.
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
        # Of a worker that is dying, sockets may close before its end can be told.
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
        "goes on from it; if memory, or shared memory in /dev/shm, is short, give it a smaller sft.loader_workers, or 0"
    )


class _Steps(Dataset):
    """Step -> its batch, packed, or what this project raises on purpose; DataLoader would make another error of it."""

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
    torch.set_num_threads(1)  # the workers are the parallelism
