"""The stack-cube environments as RLinf's env worker wants them, episode by episode.

RLinf averages episodes away and reseeds nothing; here a slot plays a list of seeds, and every episode that ends becomes
a line of the worker's journal. Slots and seeds are dealt as in `engines.rollout`, so that the rows are the same.
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
from rlinf_isaac.envs.stack_cube.contract import CONTROL_HZ, policy_images, policy_state
from rlinf_isaac.media.video import VideoWriter

IDLE = -1
"""Seed in the key of a slot that plays no episode."""


class RlinfStackCube(gym.Env):
    """`StackCubeEnv` with the interface of RLinf's ``IsaaclabBaseEnv``; auto-resets between chunks.

    An observation has ``main_images``, ``wrist_images`` (N, h, w, 3) uint8, ``states`` (N, D) float32,
    ``task_descriptions``, and in ``extra_view_images``, the one field of RLinf's observations that is free, the key of
    the episode in each slot, (N, 1, 2) int64: its seed (`IDLE`: none) and how many policy calls it has had.
    Images are rendered at the end of a chunk; RLinf takes None for the observations before.
    """

    def __init__(self, cfg: Any, num_envs: int, seed_offset: int, total_num_processes: int, worker_info: Any) -> None:
        self.cfg, self.num_envs = cfg, num_envs
        self.config = build_config(OmegaConf.to_container(cfg.init_params.job), "the job")
        self.seed = cfg.seed + seed_offset  # RLinf's recorder names its directory by it
        self.video_cfg, self.auto_reset, self.is_start = cfg.video_cfg, cfg.auto_reset, True
        self.env = make_env(self.config.env, num_envs, self.config.compute.device)
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
        """``identity`` of the environment, and ``slots``."""
        return {"identity": self.env.identity.as_dict(), "slots": self.num_envs}

    def begin(self, play: Mapping[str, Any]) -> int:
        """Take over a list of episodes; the next `reset` starts the first of every slot.

        Args:
            play: ``seeds``, all of the evaluation; ``finished``, those not to play; ``films``, seed -> mp4 file.

        Returns:
            How many episodes the longest queue of this worker's slots has.
        """
        self._open.close()
        finished = set(play["finished"])
        order = list(enumerate(play["seeds"]))
        queues = [[each for each in order[slot :: self._slots] if each[1] not in finished] for slot in self._own_slots]
        self._films = {int(seed): Path(path) for seed, path in play["films"].items()}
        self._deal(iter(queue) for queue in queues)
        return max(len(queue) for queue in queues)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Start the next episode of every slot that has none; with seeds in the config, the first again."""
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
        """Play (N, T, 7) actions; ended episodes are written down and the next ones started.

        Returns:
            Observations (None but for the last), rewards, terminations and truncations (N, T), infos, as RLinf's
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
            terminations[:, -1] = torch.from_numpy((step.success | step.dropped) & active)
            truncations[:, -1] = torch.from_numpy(step.time_out & ~(step.success | step.dropped) & active)
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
        # The info belongs to the last step: RLinf's recorder looks for a terminal observation there.
        infos: list[dict[str, Any]] = [{}] * (horizon - 1) + [info]
        # RLinf goes on to the end of its epoch when all episodes are over; nothing moves then, nothing is rendered.
        if active.any() or self._seen is None:
            self._seen = self._observation()
        return [None] * (horizon - 1) + [self._seen], rewards, terminations, truncations, infos

    def update_reset_state_ids(self) -> None:
        """RLinf asks for new initial states between rollouts; here the seeds decide."""

    def close(self) -> None:
        """Free the simulator; films that are not complete vanish."""
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
                episode.sink = self._open.enter_context(VideoWriter(self._films[seed], fps=CONTROL_HZ))
        if begin or self._last is None:
            self._last = reset_slots(self.env, self._running, begin, everything=self._last is None)
            for slot in begin:
                self._film(slot, 0)

    def _film(self, slot: int, _: int) -> None:
        episode = self._running[slot]
        if episode is not None and episode.sink is not None:
            episode.sink.append(self.env.render_frame(slot, self.config.eval.video_size))

    def _end(self, slots: list[int]) -> dict[str, Any]:
        """Write ended episodes down, start the next ones; the info that RLinf takes its metrics from."""
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
        policy = self.env.observe()["policy"]
        images = policy_images(policy)
        keys = [[[episode.seed, episode.calls] if episode else [IDLE, 0]] for episode in self._running]
        return {
            "main_images": torch.from_numpy(images["front"]),
            "wrist_images": torch.from_numpy(images["wrist"]),
            "extra_view_images": torch.tensor(keys, dtype=torch.int64),
            "states": torch.from_numpy(policy_state(policy, self.config.policy.state_layout)),
            "task_descriptions": [self.env.identity.prompt] * self.num_envs,
        }


class FrameCount:
    """Keeps count of the frames that RLinf's recorder is given, so that its videos can be checked: one per rollout
    epoch, of all environments of a worker side by side, a frame per chunk and one more where an episode ended."""

    def __init__(self, env: RlinfStackCube) -> None:
        cfg = env.cfg
        self._journal = env._journal if cfg.video_cfg.save_video else None
        self._directory = Path(cfg.video_cfg.video_base_dir) / f"seed_{env.seed}"
        self._chunks_per_epoch = cfg.max_steps_per_rollout_epoch // env.config.policy.action_chunk
        self._chunks = self._frames = self._videos = 0

    def reset(self) -> None:
        """The observation after a reset is a frame."""
        self._frames += 1

    def chunk(self, *, ended: bool) -> None:
        """So is the one after a chunk, and the terminal one where an episode has `ended`."""
        self._frames += 2 if ended else 1
        self._chunks += 1
        if self._chunks % self._chunks_per_epoch == 0:  # RLinf writes the file now
            if self._journal is not None:
                path = self._directory / f"{self._videos}.mp4"
                self._journal.write("recorded", path=str(path), frames=self._frames)
            self._videos, self._frames = self._videos + 1, 0
