"""The structured job config. One preset YAML fills it; the command line overrides it; an unknown key is an error.

Every field says what it is, and its rule (`rules`) what it may be. `docs/config.md` lists them all. Which keys a verb
reads is in `reads`; the sections it has to do with are MLflow params ``cfg/...`` of its run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from rlinf_isaac.config.rl_schema import RlConfig
from rlinf_isaac.config.rules import NOT_NEGATIVE, POSITIVE, Rule, one_of
from rlinf_isaac.config.sft_schema import SftConfig
from rlinf_isaac.config.vary_schema import VaryConfig


@dataclass
class GemmaConfig:
    """A Gemma transformer (the VLM's language model, or the action expert). OpenPI: ``models/gemma.py``."""

    width: Annotated[int, POSITIVE] = MISSING
    """The width of its tokens."""

    depth: Annotated[int, POSITIVE] = MISSING
    """How many layers it has; as many as the other transformer, with which it shares attention."""

    mlp_dim: Annotated[int, POSITIVE] = MISSING
    """The width inside its feed-forward layers."""

    num_heads: Annotated[int, POSITIVE] = MISSING
    """How many heads its attention has; as many as the other transformer."""

    num_kv_heads: Annotated[int, POSITIVE] = MISSING
    """How many heads of keys and values these share; as many as the other transformer."""

    head_dim: Annotated[int, POSITIVE] = MISSING
    """The width of a head; that of the other transformer."""


@dataclass
class VisionConfig:
    """The SigLIP vision tower. OpenPI: ``models/siglip.py``."""

    width: Annotated[int, POSITIVE] = MISSING
    """The width of its tokens; a multiple of `num_heads`."""

    depth: Annotated[int, POSITIVE] = MISSING
    """How many layers it has."""

    mlp_dim: Annotated[int, POSITIVE] = MISSING
    """The width inside its feed-forward layers."""

    num_heads: Annotated[int, POSITIVE] = MISSING
    """How many heads its attention has."""

    patch_size: Annotated[int, POSITIVE] = MISSING
    """The side of the square of pixels that becomes one token."""

    image_size: Annotated[int, POSITIVE] = MISSING
    """The side in pixels to which images are scaled; a multiple of `patch_size`."""


@dataclass
class ModelConfig:
    """Architecture of pi0 / pi0.5. Everything here decides names or shapes of the state dict, or token counts."""

    pi05: bool = False
    """Whether the model is a pi0.5, whose flow time goes into the expert's norms, or a pi0."""

    vlm: GemmaConfig = field(default_factory=GemmaConfig)
    """The language model of the VLM, which reads images and prompt."""

    expert: GemmaConfig = field(default_factory=GemmaConfig)
    """The action expert, which reads what the VLM makes of them and predicts the actions."""

    vision: VisionConfig = field(default_factory=VisionConfig)
    """The vision tower of the VLM."""

    vocab_size: Annotated[int, POSITIVE] = MISSING
    """How many tokens the VLM has embeddings for."""

    action_dim: Annotated[int, POSITIVE] = 32
    """The width of actions and states in the model, to which the robot's are padded; OpenPI's."""

    action_horizon: Annotated[int, POSITIVE] = MISSING
    """How many actions a call of the policy predicts, one for each control step."""

    max_token_len: Annotated[int, POSITIVE] = MISSING
    """How many tokens a prompt has at most."""

    discrete_state_input: bool = False
    """Whether the state is text in the prompt, as in pi0.5's bases, or a vector (pi0)."""


@dataclass
class PolicyConfig:
    """How the model meets the robot: what it sees, how it is normalised, how much of a chunk is executed."""

    state_layout: Annotated[str, one_of("proprio", "proprio+cubes")] = "proprio"
    """What the state of stack-cube holds: ``proprio`` is 8-D, as RLinf's IsaacLab wrapper has it (end-effector
    position, axis-angle, gripper); ``proprio+cubes`` adds the poses of the cubes, privileged information that only a
    simulator has."""

    tokenizer: str = "byte"
    """``byte``, or the path of PaliGemma's SentencePiece model."""

    norm: Annotated[str, one_of("auto", "zscore", "quantile")] = "auto"
    """How states and actions are normalised; ``auto`` takes z-scores for pi0 and quantiles for pi0.5, as OpenPI."""

    delta_actions: str = "none"
    """The action dims that the model learns relative to the state its chunk starts in, in the notation of OpenPI's
    ``make_bool_mask``: ``none``, or e.g. ``6,-1`` (6 relative, then 1 absolute; in quotes on the command line, because
    of the comma)."""

    env_action_dim: Annotated[int, POSITIVE] = 7
    """How many dims the robot's actions have. The task decides it; stack-cube has three of translation, three of
    rotation, and the gripper."""

    action_chunk: Annotated[int, POSITIVE] = MISSING
    """How many of the predicted actions are executed before the policy is asked again."""

    denoise_steps: Annotated[int, POSITIVE] = 10
    """In how many steps the flow goes from noise to actions; OpenPI's default."""

    asset_id: str = "isaaclab_stack_cube"
    """The name under which norm stats lie in a checkpoint, ``assets/<asset_id>``, as OpenPI's."""


@dataclass
class EnvConfig:
    """The task and its environment."""

    backend: Annotated[str, one_of("mujoco", "isaaclab", "gymnasium", "lerobot", "rlinf", "none")] = "mujoco"
    """The simulator. Stack-cube runs in ``mujoco``, on the CPU (``compute.env_processes``), or in ``isaaclab``, in a
    process of its own and on ``compute.device``. Any other task decides it itself (``isaaclab`` is any task of
    IsaacLab); ``none``: it has no environment."""

    task: str = "stack2"
    """The task: ``stack2`` or ``stack3`` (that many cubes; IsaacLab has ``stack3`` only), another name, or a YAML file
    (docs/tasks.md)."""

    image_size: Annotated[int, Rule("16 pixels or more", lambda x: x >= 16)] = 200
    """The side in pixels of both cameras' images in stack-cube; IsaacLab's. Other environments decide it themselves."""

    renderer: str = "auto"
    """What draws the images: in MuJoCo ``egl`` (OpenGL), ``rays`` (no GL), or ``auto``, EGL where it works; in IsaacLab
    ``newton`` or ``auto``."""

    max_episode_steps: Annotated[int, POSITIVE] = 600
    """How many control steps an episode has before its time is up; a multiple of ``policy.action_chunk``. Stack-cube
    has 20 per second."""


@dataclass
class DemosConfig:
    """Demonstrations by a scripted expert."""

    episodes: Annotated[int, POSITIVE] = 100
    """How many episodes are recorded; those in which the expert fails do not count."""

    first_seed: Annotated[int, NOT_NEGATIVE] = 1000
    """The seed of the first episode; every further one has the next number."""

    noise: Annotated[float, NOT_NEGATIVE] = 0.02
    """The standard deviation of Gaussian noise, in raw action units, that is added to the executed action and not to
    the recorded one, so that the data shows recoveries under clean labels."""

    workers: Annotated[int, POSITIVE] = 2
    """How many processes record; they change no byte of the data."""


@dataclass
class NormStatsConfig:
    """How norm stats are computed."""

    batch_size: Annotated[int, POSITIVE] = 32
    """Frames count in whole batches of this many, and the partial last batch is left out, as OpenPI does, whose configs
    have 32 unless they say otherwise; 1 counts every frame."""


@dataclass
class EvalConfig:
    """Evaluation: the same episodes for every checkpoint."""

    episodes: Annotated[int, POSITIVE] = 50
    """How many episodes each checkpoint plays."""

    first_seed: Annotated[int, NOT_NEGATIVE] = 5000
    """The seed of the first episode; every further one has the next number."""

    num_envs: Annotated[int, POSITIVE] = 25
    """How many environments play side by side."""

    policy_seed: Annotated[int, NOT_NEGATIVE] = 0
    """The seed of the noise from which the policy's flow starts."""

    videos: Annotated[int, NOT_NEGATIVE] = 4
    """How many episodes of each checkpoint are filmed: those on which checkpoints disagree, then failures, then others;
    they are played again for it. In an environment that takes no seeds it is the first ones."""

    video_size: Annotated[int, Rule("an even number of pixels, 16 or more", lambda x: x >= 16 and x % 2 == 0)] = 256
    """The height of the films in pixels."""


@dataclass
class ComputeConfig:
    """Where and how torch runs."""

    device: str = "cpu"
    """The torch device: ``cpu``, ``cuda`` or ``cuda:<n>``."""

    threads: Annotated[int, NOT_NEGATIVE] = 1
    """How many CPU threads torch computes with; 0 leaves torch's default. Tiny models are fastest with 1."""

    dtype: Annotated[str, one_of("float32", "bfloat16")] = "float32"
    """The format of the parameters; ``bfloat16`` is mixed as OpenPI does it (`pi0.precision`). `rl` on RLinf is always
    float32."""

    master_weights: bool = True
    """Whether bfloat16 parameters train by float32 copies: next to a learning rate of 2.5e-5, bfloat16 alone rounds
    most updates away. OpenPI has no copies."""

    num_processes: Annotated[int, POSITIVE] = 1
    """On how many GPUs of this machine `sft` or `rl` trains, or in how many processes on a CPU; torchrun sets it for
    several machines."""

    sharding: Annotated[str, one_of("auto", "replicate", "shard")] = "auto"
    """How several processes of `sft` hold the model: ``replicate`` all of it in each, which is fastest (DDP); ``shard``
    a part of everything in each (FSDP2); ``auto`` takes copies where the estimate of the memory allows them. Those of
    `rl` always have copies."""

    compile: bool = True
    """Whether a CUDA device runs Triton kernels and CUDA graphs for inference, and `torch.compile` for training; false
    takes the plain path, as every other device does."""

    env_processes: Annotated[int, NOT_NEGATIVE] = 0
    """In how many processes the environments of a policy are simulated, in each of its lanes; they change no row. 0: as
    many as there are CPUs where the policy is on a GPU, or the environment is not this project's own; otherwise the
    policy's own process does it. IsaacLab always has one of its own."""

    lanes: Annotated[int, Rule("0, 1 or 2", lambda x: x in (0, 1, 2))] = 0
    """With 2, the environments play in two halves: while the policy samples for one, the other steps. The policy's
    batches are half as large, so that actions are rounded otherwise. 0: 2 where the policy is on a GPU, the number of
    environments is even, and they are not IsaacLab's, which take a second simulator for it; otherwise 1."""


@dataclass
class JobConfig:
    """Everything a job needs, under one preset name."""

    preset: str = MISSING
    """The name of the preset that the values come from."""

    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    norm_stats: NormStatsConfig = field(default_factory=NormStatsConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    vary: VaryConfig = field(default_factory=VaryConfig)
    task: dict[str, Any] = field(default_factory=dict)
    """The description of the task that ``env.task`` names (`config.task.task_of`); empty for stack-cube."""

    suite: dict[str, Any] = field(default_factory=dict)
    """The descriptions of several tasks that one policy learns (`tasks.suite.Suite.as_dict`); empty for a single one.
    ``env.task`` then has the suite's name, or says which of its tasks are meant (`config.suite`)."""

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values; those of a single task and of nothing varied are those of earlier releases, which had no
        suites and no variations."""
        values = asdict(self)
        if values["vary"] == asdict(VaryConfig()):
            del values["vary"]
        if not self.suite:
            del values["suite"]
        return values
