"""The stack-cube environment with the interface of RLinf's env worker, and with a row for each episode.

RLinf itself reports only averages over episodes, and does not set their seeds. Here each slot plays a list of seeds,
and every finished episode becomes a line of the worker's journal. Seeds are assigned to slots as in `engines.rollout`,
so that the rows are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from omegaconf import OmegaConf

from rlinf_isaac.config import build_config
from rlinf_isaac.engines.rlinf.run_journal import JournalWriter
from rlinf_isaac.engines.rlinf.worker.place import directory
from rlinf_isaac.engines.rollout import Episode, advance, reset_slots
from rlinf_isaac.envs import make_env
from rlinf_isaac.media.video import VideoWriter

IDLE = -1
"""Seed in the key of a slot without an episode."""


class RlinfStackCube(gym.Env):
    """`StackCubeEnv` with the interface of RLinf's ``IsaaclabBaseEnv``; auto-resets between chunks.

    An observation has ``main_images`` and ``wrist_images`` (N, h, w, 3) uint8, ``states`` (N, D) float32, and
    ``task_descriptions``. The field ``extra_view_images``, which RLinf does not use otherwise, has the key of the
    episode in each slot, (N, 1, 2) int64: its seed (`IDLE` if there is none) and its number of policy calls.
    Images are rendered only at the end of a chunk; RLinf accepts None for the earlier observations.
    """

    def __init__(self, cfg: Any, num_envs: int, seed_offset: int, total_num_processes: int, worker_info: Any) -> None:
        self.cfg, self.num_envs = cfg, num_envs
        self.config = build_config(OmegaConf.to_container(cfg.init_params.job), "the job")
        self.seed = cfg.seed + seed_offset  # part of the directory name of RLinf's recorder
        self.video_cfg, self.auto_reset, self.is_start = cfg.video_cfg, cfg.auto_reset, True
        self.env = make_env(self.config, num_envs)
        self._first_slot, self._slots = seed_offset * num_envs, total_num_processes * num_envs
        self._journal = JournalWriter(directory() / "journal", os.environ.get("WORKER_NAME", "env").replace(":", "-"))
        self._seeds = cfg.init_params.seeds
        self._subtask_reward = (
            self.config.rl.subtask_reward if self._trains and self.config.rl.reward == "shaped" else 0.0
        )
        self._running: list[Episode | None] = [None] * num_envs
        self._waiting: list[Iterator[tuple[int, int]]] = [iter(()) for _ in range(num_envs)]
        self._films: dict[int, Path] = {}
        self._writers: dict[int, VideoWriter] = {}
        self._open = ExitStack()
        self._last: dict[str, Any] | None = None
        self._seen: dict[str, Any] | None = None
        self._frame_count = FrameCount(self)

    def describe(self) -> dict[str, Any]:
        """``identity`` of the environment, and the number of ``slots``."""
        return {"identity": self.env.identity.as_dict(), "slots": self.num_envs}

    def begin(self, play: Mapping[str, Any]) -> int:
        """Set the episodes to play; the next `reset` starts the first episode of every slot.

        Args:
            play: ``seeds``, all seeds of the evaluation; ``finished``, seeds to skip; ``films``, seed -> mp4 file.

        Returns:
            the largest number of episodes in a slot of this worker.
        """
        self._open.close()
        finished = set(play["finished"])
        order = list(enumerate(play["seeds"]))
        queues = [[each for each in order[slot :: self._slots] if each[1] not in finished] for slot in self._own_slots]
        self._films = {int(seed): Path(path) for seed, path in play["films"].items()}
        self._deal(iter(queue) for queue in queues)
        return max(len(queue) for queue in queues)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the next episode in every empty slot. If the config has seeds, start again with the first ones."""
        if self._seeds is not None:
            first, count = self._seeds
            self._deal(
                enumerate(range(first + slot, first + count if count else 2**32, self._slots))
                for slot in self._own_slots
            )
        self._start_waiting()
        self._frame_count.reset()
        self._seen = self._observation()
        return self._seen, {}

    def chunk_step(self, actions: Any) -> tuple[list, torch.Tensor, torch.Tensor, torch.Tensor, list]:
        """Step through actions (N, T, 7). Rows of ended episodes are journaled, and the next episodes are started.

        Returns:
            observations (None except the last), rewards, terminations and truncations (N, T), and infos, as by RLinf's
            ``IsaaclabBaseEnv.chunk_step`` with auto-reset.
        """
        actions = np.asarray(actions, np.float32)
        horizon = actions.shape[1]
        active = np.array([episode is not None for episode in self._running])
        terminations, truncations = (torch.zeros(self.num_envs, horizon, dtype=torch.bool) for _ in range(2))
        rewards, info = torch.zeros(self.num_envs, horizon), {}
        if active.any():
            step = self.env.chunk_step(actions, active, self._film)
            rewards = torch.from_numpy(step.rewards)
            terminations[:, -1] = torch.from_numpy(step.terminated & active)
            truncations[:, -1] = torch.from_numpy(step.time_out & ~step.terminated & active)
            ended = []
            for slot in np.flatnonzero(active).tolist():
                episode = self._running[slot]
                assert episode is not None
                known = sum(episode.subtasks.values())
                advance(episode, step, slot, episode.calls)
                rewards[slot, -1] += self._subtask_reward * (sum(episode.subtasks.values()) - known)
                if episode.outcome is not None:
                    ended.append(slot)
            if ended:
                info = self._end(ended)
        self._frame_count.chunk(ended="final_observation" in info)
        # The info of the last step is set, because RLinf's recorder looks for a terminal observation there.
        infos: list[dict[str, Any]] = [{}] * (horizon - 1) + [info]
        # After all episodes have ended, RLinf continues to the end of its epoch; nothing is stepped or rendered then.
        if active.any() or self._seen is None:
            self._seen = self._observation()
        return [None] * (horizon - 1) + [self._seen], rewards, terminations, truncations, infos

    def update_reset_state_ids(self) -> None:
        """No-op: RLinf calls this to get new initial states, but here the seeds determine them."""

    def close(self) -> None:
        """Close the simulator; incomplete videos are deleted."""
        self._open.close()
        self.env.close()

    @property
    def _trains(self) -> bool:
        return self._seeds is not None and not self._seeds[1]

    @property
    def _own_slots(self) -> range:
        return range(self._first_slot, self._first_slot + self.num_envs)

    def _deal(self, queues: Iterable[Iterator[tuple[int, int]]]) -> None:
        self._waiting = list(queues)
        self._running, self._last = [None] * self.num_envs, None

    def _start_waiting(self) -> None:
        begin = []
        for slot in range(self.num_envs):
            if self._running[slot] is not None or (upcoming := next(self._waiting[slot], None)) is None:
                continue
            begin.append(slot)
            index, seed = upcoming
            episode = self._running[slot] = Episode(seed, self._first_slot + slot, index)
            if seed in self._films:
                episode.sink = self._open.enter_context(VideoWriter(self._films[seed], fps=self.env.task.control_hz))
        if begin or self._last is None:
            self._last = reset_slots(self.env, self._running, begin, everything=self._last is None)
            for slot in begin:
                self._film(slot, 0)

    def _film(self, slot: int, _: int) -> None:
        episode = self._running[slot]
        if episode is not None and episode.sink is not None:
            episode.sink.append(self.env.render_frame(slot, self.config.eval.video_size))

    def _end(self, slots: list[int]) -> dict[str, Any]:
        """Journal ended episodes and start the next ones; returns the info from which RLinf takes its metrics."""
        metrics = {name: torch.zeros(self.num_envs) for name in ("success_once", "return", "episode_len", "reward")}
        for slot in slots:
            episode = self._running[slot]
            assert episode is not None
            if isinstance(episode.sink, VideoWriter):
                episode.sink.close()
            row = episode.row(0, "", 0).as_dict()
            self._journal.write("episode", row=row)
            metrics["success_once"][slot] = float(row["success"])
            metrics["return"][slot] = episode.episode_return
            metrics["episode_len"][slot] = episode.length
            metrics["reward"][slot] = episode.episode_return / episode.length
            self._running[slot] = None
        final = self._observation()
        self._start_waiting()
        return {"final_info": {"episode": metrics}, "final_observation": final}

    def _observation(self) -> dict[str, Any]:
        seen = self.env.policy_input(self.env.observe())
        keys = [[[episode.seed, episode.calls] if episode else [IDLE, 0]] for episode in self._running]
        return {
            "main_images": torch.from_numpy(seen.images["base_0_rgb"]),
            "wrist_images": torch.from_numpy(seen.images["left_wrist_0_rgb"]),
            "extra_view_images": torch.tensor(keys, dtype=torch.int64),
            "states": torch.from_numpy(seen.states),
            "task_descriptions": self.env.prompts(),
        }


class FrameCount:
    """Counts the frames in the videos of RLinf's recorder, so that the videos can be checked.

    The recorder writes one video per rollout epoch, with all environments of a worker side by side. It has one frame
    per chunk, and one more if an episode has ended.
    """

    def __init__(self, env: RlinfStackCube) -> None:
        cfg = env.cfg
        self._journal = env._journal if cfg.video_cfg.save_video else None
        self._directory = Path(cfg.video_cfg.video_base_dir) / f"seed_{env.seed}"
        self._chunks_per_epoch = cfg.max_steps_per_rollout_epoch // env.config.policy.action_chunk
        self._chunks = self._frames = self._videos = 0

    def reset(self) -> None:
        """Count the observation after a reset, which is a frame."""
        self._frames += 1

    def chunk(self, *, ended: bool) -> None:
        """Count the observation after a chunk, and the terminal one if an episode has `ended`."""
        self._frames += 2 if ended else 1
        self._chunks += 1
        if self._chunks % self._chunks_per_epoch == 0:  # end of the epoch, where RLinf writes the file
            if self._journal is not None:
                path = self._directory / f"{self._videos}.mp4"
                self._journal.write("recorded", path=str(path), frames=self._frames)
            self._videos, self._frames = self._videos + 1, 0
