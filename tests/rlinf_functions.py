"""Calls RLinf's own functions of advantages and losses, in its interpreter, for the tests marked `rlinf`.

Each line on stdin, a JSON object, has the name of a function below and its arguments, with arrays as nested lists; each
line on stdout that begins with a brace is the answer, a dict of lists.
"""

from __future__ import annotations

import json
import sys

import torch


def gae(rewards, values, dones, gamma, gae_lambda, normalise):
    """Of one environment: T rewards, T + 1 values and done flags, each for a chunk of several control steps."""
    from rlinf.algorithms.registry import calculate_adv_and_returns

    shaped = [torch.tensor(each)[:, None, :] for each in (rewards, values, dones)]
    found = calculate_adv_and_returns(
        task_type="embodied",
        adv_type="gae",
        reward_type="chunk_level",
        rewards=shaped[0],
        values=shaped[1],
        dones=shaped[2],
        gamma=gamma,
        gae_lambda=gae_lambda,
        group_size=1,
        normalize_advantages=normalise,
    )
    return {name: found[name].flatten().tolist() for name in ("advantages", "returns")}


def grpo(returns, group_size):
    from rlinf.algorithms.advantages import compute_grpo_advantages

    mask = torch.ones(1, len(returns))
    return {"advantages": compute_grpo_advantages(torch.tensor(returns), mask, group_size)[0].flatten().tolist()}


def loss_mask(dones):
    from rlinf.utils.metric_utils import compute_loss_mask

    mask, _ = compute_loss_mask(torch.tensor(dones)[:, None, :])
    return {"chunks": mask.any(-1).flatten().tolist()}


def actor(log_probs, old, advantages, clip, dual_clip):
    from rlinf.algorithms.losses import compute_ppo_actor_loss

    parameter = torch.tensor(log_probs, requires_grad=True)
    loss, metrics = compute_ppo_actor_loss(
        parameter,
        torch.tensor(old),
        clip,
        clip,
        torch.tensor(advantages),
        clip_ratio_c=dual_clip,
    )
    loss.backward()
    names = {"kl": "actor/approx_kl", "clip_fraction": "actor/clip_fraction"}
    scalars = {name: [float(metrics[theirs])] for name, theirs in names.items()}
    return {"loss": [float(loss)], "gradient": parameter.grad.tolist(), **scalars}


def weighted(losses, mask, max_steps):
    """The mean loss over chunks of two episodes, with the weights of `masked_mean_ratio`."""
    from rlinf.utils.utils import masked_mean_ratio

    shaped = torch.tensor(mask)
    share = shaped.sum(0, keepdim=True).expand_as(shaped) / max_steps
    return {"loss": [float(masked_mean_ratio(torch.tensor(losses), shaped, share))]}


def critic(values, returns, old, value_clip, delta):
    from rlinf.algorithms.losses import compute_ppo_critic_loss

    tensors = [torch.tensor(each) for each in (values, returns, old)]
    loss, metrics = compute_ppo_critic_loss(*tensors, value_clip, delta)
    return {"loss": [float(loss)], "explained_variance": [float(metrics["critic/explained_variance"])]}


def main() -> None:
    import rlinf.algorithms  # noqa: F401  registers the functions

    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(globals()[request.pop("name")](**request)), flush=True)


if __name__ == "__main__":
    main()
