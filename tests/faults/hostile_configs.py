"""Presets, overrides, assumptions, and the configs of RLinf and Ray."""

from __future__ import annotations

import json
from typing import Any

from faults.attack import Attack, write
from faults.hostile_datasets import ESC
from faults.hostile_json import RAY, SFT

_LAUGHS = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 10))
PRESETS: dict[str, str | bytes] = {
    "nothing that is a mapping": "- 1\n- 2\n",
    "an object to construct": "base: tiny\nx: !!python/object/apply:os.mkdir [canary]\n",
    "an object to construct, new": "base: tiny\nx: !!python/object/new:os.system [touch canary]\n",
    "a billion laughs": f"l0: &l0 [ha, ha]\n{_LAUGHS}base: tiny\n",
    "laughs in a known key": f"base: tiny\nl0: &l0 [ha, ha]\n{_LAUGHS}rl: {{value_widths: *l9}}\n",
    "itself": "base: tiny\nx: &x [*x]\n",
    "brackets without end": "[" * 50_000,
    "brackets that close": "x: " + "[" * 500 + "]" * 500,
    "blocks in blocks": "\n".join(" " * n + "a:" for n in range(2000)),
    "a key of a megabyte": "? " + "a" * 900_000 + "\n: 1\n",
    "too many megabytes": "base: tiny\n" + "# x\n" * 600_000,
    "null bytes": bytes(100),
    "UTF-16": "base: tiny\n".encode("utf-16"),
    "no UTF-8": b"base: \xff\n",
    "bare commands": "base: tiny\nx: '\x1b[2J'\n",
    "spelled commands": 'base: tiny\n"\\e[2J\\u202e\\x9b": 1\n',
    "a value of commands": 'base: tiny\nenv: {task: "\\e[2J\\u202e\\x9b\\r\\nerror forged"}\n',
    "a base of commands": 'base: "\\e[2J"\n',
    "a base that is itself": "base: preset.yaml\n",
    "a base elsewhere": "base: ../../../../etc/passwd\n",
    "a base that is a list": "base: [tiny]\n",
    "a number of four hundred digits": "base: tiny\nsft: {steps: " + "9" * 400 + "}\n",
    "a number of five thousand digits": "base: tiny\nsft: {steps: " + "9" * 5000 + "}\n",
    "a number of twenty digits": "base: tiny\nsft: {steps: 99999999999999999999}\n",
    "the largest number": "base: tiny\nsft: {steps: 9223372036854775807, save_interval: 1}\n",
    "infinity": "base: tiny\nsft: {lr: .inf}\n",
    "no number": "base: tiny\nsft: {lr: .nan}\n",
    "a date": "base: tiny\nsft: {steps: 2020-01-01}\n",
    "hours": "base: tiny\nsft: {steps: 99:59:59}\n",
    "bytes": "base: tiny\npolicy: {asset_id: !!binary aGFsbG8=}\n",
    "a set": "base: tiny\npolicy: {asset_id: !!set {a, b}}\n",
    "a section that is a number": "base: tiny\nsft: 7\n",
    "a value that is a section": "base: tiny\nsft: {steps: {a: {b: 1}}}\n",
    "a key that is a list": "base: tiny\n? [a, b]\n: 1\n",
    "a key that is null": "base: tiny\n~: 1\n",
    "an interpolation": "base: tiny\npolicy: {asset_id: '${oc.env:HOME}'}\n",
    "an interpolation within a list": "base: tiny\nrl: {value_widths: ['${oc.env:HOME}', 64]}\n",
    "an interpolation deep inside": "base: tiny\nrl: {value_widths: [{a: ['${oc.env:HOME}']}]}\n",
    "a resolver": "base: tiny\nrl: {value_widths: ['${oc.decode:\"[1]\"}']}\n",
    "an interpolation of itself": "base: tiny\npolicy: {asset_id: '${policy.asset_id}'}\n",
    "half an interpolation": "base: tiny\npolicy: {asset_id: '${'}\n",
    "what is missing": "base: tiny\nsft: {steps: ???}\n",
    "what is missing within a list": "base: tiny\nrl: {value_widths: ['???', 64]}\n",
    "a path of null bytes": 'base: tiny\npolicy: {tokenizer: "a\\0b"}\n',
    "a tokenizer without end": "base: tiny\npolicy: {tokenizer: /dev/zero}\n",
    "a tokenizer that is a directory": "base: tiny\npolicy: {tokenizer: /}\n",
    "a tokenizer of a long name": "base: tiny\npolicy: {tokenizer: " + "a" * 5000 + "}\n",
    "a device of commands": 'base: tiny\ncompute: {device: "cpu\\e[2J"}\n',
    "a delta mask without end": "base: tiny\npolicy: {delta_actions: '" + "1,-1," * 20_000 + "1'}\n",
    "a delta mask of a billion": "base: tiny\npolicy: {delta_actions: '999999999999'}\n",
    "images beyond memory": "base: tiny\nenv: {image_size: 10000000000}\nmodel: {vision: {image_size: 10000000000}}\n",
    "layers beyond counting": "base: tiny\nmodel: {vlm: {depth: 1000000000000}, expert: {depth: 1000000000000}}\n",
}
# The largest numbers may be fine, on a machine with a disk for them.
_OF_A_POLICY = ("a delta mask", "a tokenizer", "a path", "bytes", "a set")  # which demos do not read
_FINE = ("the largest number", "hours", "images beyond memory", "layers beyond counting")
_OF_PRESETS = [
    Attack(
        f"{words[0]}: {name} in a preset",
        words,
        write("preset.yaml", text),
        (),
        (0, 2) if name in (*_FINE, "bytes") and words[0] == "doctor" else (2,),
    )
    for number, (name, text) in enumerate(PRESETS.items())
    for words in (
        ("doctor", "--preset", "preset.yaml"),
        *(
            [("demos", "--preset", "preset.yaml", "--output", "out")]
            if number % 3 == 0 and not name.startswith((*_FINE, *_OF_A_POLICY))
            else []
        ),
    )
]

OVERRIDES = {
    "no value": "sft.steps",
    "no key": "=5",
    "only signs": "===,,,===",
    "an unknown key of commands": f"sft.{ESC}=5",
    "a value of commands": f"env.task={ESC}",
    "an interpolation": "policy.asset_id=${oc.env:HOME}",
    "an interpolation within a list": "rl.value_widths=['${oc.env:HOME}',64]",
    "an interpolation within an object": "rl={value_widths: ['${oc.env:HOME}']}",
    "an interpolation as a key": "sft.${oc.env:HOME}=5",
    "what is missing within a list": "rl.value_widths=['???',64]",
    "a billion laughs": "rl.value_widths={a: &a [1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a]}",
    "an object to construct": "sft.steps=!!python/object/apply:os.mkdir [canary]",
    "brackets without end": "rl.value_widths=" + "[" * 100_000,
    "brackets that close": "rl.value_widths=" + "[" * 400 + "]" * 400,
    "quotes without end": "policy.asset_id=" + "'" * 10_001,
    "dots without end": "sft" + "." * 10_000 + "steps=1",
    "a very long one": "policy.asset_id=" + "a" * 120_000,
    "a number of four hundred digits": "sft.steps=" + "9" * 400,
    "a number of five thousand digits": "sft.steps=" + "9" * 5000,
    "infinity": "sft.lr=inf",
    "no number": "sft.lr=nan",
    "a negative number": "sft.steps=-1",
    "nothing": "sft.steps=",
    "a text for a list": "rl.value_widths=abc",
    "an index": "rl.value_widths[0]=5",
    "the whole": "sft=5",
    "private things": "sft.__class__.__init__=5",
    "half a surrogate pair": "policy.asset_id=\udcff",
    "a tag": "sft.steps=!!binary aGFsbG8=",
}
_OF_OVERRIDES = [
    Attack(f"doctor: {name} as an override", (*SFT, "--overrides", text), needs=("dataset", "preset.yaml"))
    for name, text in OVERRIDES.items()
] + [
    Attack(
        f"demos: {name} as an override",
        ("demos", "--preset", "preset.yaml", "--overrides", text),
        needs=("preset.yaml",),
    )
    for name, text in list(OVERRIDES.items())[::4]
]

ASSUMPTIONS = {
    "an unknown fact of commands": f"{ESC}=1",
    "a prompt that is looked up": "prompt='${oc.env:HOME}'",
    "a rate of five thousand digits": "control_hz=" + "9" * 5000,
    "a rate of forty digits": "control_hz=" + "9" * 40,
    "no rate": "control_hz=nan",
    "a state of lists": "state=[[a],[b]]",
    "a state that is looked up": "state=['${oc.env:HOME}']",
    "a billion laughs": "actions={a: &a [1,1], b: &b [*a,*a,*a,*a,*a,*a,*a,*a]}",
    "an object to construct": "prompt=!!python/object/apply:os.mkdir [canary]",
    "a horizon of forty digits": "action_horizon=" + "9" * 40,
    "a tokenizer without end": "tokenizer=/dev/zero",
}
_OF_ASSUMPTIONS = [
    Attack(f"{words[0]}: {name} as an assumption", (*words, "--assume", text), needs=needs)
    for name, text in ASSUMPTIONS.items()
    for words, needs in (
        (("doctor", "eval", "--ckpt-root", "ckpts"), ("ckpts",)),
        (
            ("bundle", "make", "policy", "--step", "1", "--preset", "dummy.yaml", "--output", "out"),
            ("policy", "dummy.yaml"),
        ),
    )
    if words[0] == "doctor"
    or name not in ("a prompt that is looked up", "a state that is looked up", "a state of lists")
]

RAYS: dict[str, Any] = {
    "nothing": {},
    "an unknown key of commands": {ESC: 1, "address": "http://127.0.0.1:9", "directory": "/tmp"},
    "an address of commands": {"address": f"http://{ESC}", "directory": "/tmp"},
    "an address that is none": {"address": "http://[::1", "directory": "/tmp"},
    "an address that is a list": {"address": ["http://127.0.0.1:9"], "directory": "/tmp"},
    "a relative directory": {"address": "http://127.0.0.1:9", "directory": "x"},
    "variables that are numbers": {"address": "http://127.0.0.1:9", "directory": "/tmp", "env": {"A": 1}},
    "processors beyond counting": {"address": "http://127.0.0.1:9", "directory": "/tmp", "entrypoint_num_cpus": -1},
    "a patience that is a text": {"address": "http://127.0.0.1:9", "directory": "/tmp", "patience_s": ESC},
    "nobody there": {"address": "http://127.0.0.1:9", "directory": "/tmp"},
}
_OF_RAY = [
    Attack(f"run: {name} in ray.json", RAY, write("ray.json", json.dumps(values)), (), (1, 2))
    for name, values in RAYS.items()
]

RUNS = {
    "nothing": "",
    "a list": "- 1\n",
    "a runner that is a list": "runner: [1]\n",
    "an object to construct": "runner: !!python/object/apply:os.mkdir [canary]\n",
    "a billion laughs": f"l0: &l0 [ha, ha]\n{_LAUGHS}runner: {{task_type: *l9}}\n",
    "a task of commands": 'runner: {task_type: "\\e[2J"}\n',
    "a task that is an object": "runner: {task_type: {a: 1}}\n",
    "depth": "runner: " + "{a: " * 500 + "1" + "}" * 500,
}
_OF_RUNS = [
    Attack(
        f"ingest: {name} as the config of a run",
        ("ingest", "--source", "log", "--output", "out"),
        write("log/tensorboard/config.yaml", text),
        ("log",),
        (0, 2),
    )
    for name, text in RUNS.items()
] + [
    Attack(
        f"bundle: {name} as the config of the run around it",
        ("bundle", "make", "log/ppo/checkpoints/global_step_1", "--output", "out"),
        write("log/tensorboard/config.yaml", text),
        ("log",),
    )
    for name, text in {
        **RUNS,
        "paths that are looked up": "actor: {model: {model_path: '${oc.env:HOME}'}}\n",
        "paths that double": "".join(f"a{n}: '${{a{n + 1}}}${{a{n + 1}}}'\n" for n in range(40))
        + "a40: x\nactor: {model: '${a0}'}\n",
        "a path without end": "actor: {model: {openpi_data: {norm_stats_path: /dev/zero}}}\n",
        "a path of commands": 'actor: {model: {model_path: "/\\e[2J"}}\n',
    }.items()
]

CONFIGS = [*_OF_PRESETS, *_OF_OVERRIDES, *_OF_ASSUMPTIONS, *_OF_RAY, *_OF_RUNS]
