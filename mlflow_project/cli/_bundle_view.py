"""What `bundle verify` and `bundle show` print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mlflow_project.cli._session import print_wide, stdout
from mlflow_project.tracking.terminal import SafeConsole, escaped
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.coverage import check_coverage
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import ModelConfig
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.preflight.findings import Findings


def verify(path: Path) -> None:
    """Hash every file and compare names and shapes with the bundle's own architecture; print a table.

    Raises:
        InvalidJob: with the first fault of the files, or the faults of the weights.
    """
    bundle = read_bundle(path)
    Findings(check_coverage(bundle.path, model_of(bundle), optional=OPTIONAL_PREFIXES)).raise_errors()
    table = Table(title=f"{bundle.path}: every byte as it was sealed", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("size", justify="right")
    table.add_column("sha256")
    for name, entry in sorted(bundle.manifest.files.items()):
        table.add_row(name, decimal(entry.size), entry.sha256[:16])
    print_wide(table)
    tied = f", {len(bundle.manifest.tied)} tied" if bundle.manifest.tied else ""
    stdout.print(
        f"weights      {bundle.manifest.key_count} tensors{tied}: all that the architecture has, and no others"
    )
    stdout.print(f"bundle       sha256 {bundle.digest}")


def show(path: Path) -> None:
    """Print config, lineage and sizes as a tree. All files but the weights are hashed on the way."""
    bundle = read_bundle(path, verify=False)
    manifest, config = bundle.manifest, bundle.config
    tree = Tree(_text((str(bundle.path.absolute()), "bold")))
    tree.add(f"step {bundle.step}, asset id {bundle.asset_id}, sha256 {bundle.digest}")
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(manifest.dtypes.items()))
    weights = tree.add(f"weights: {manifest.key_count} tensors ({dtypes}), {manifest.parameters:,} parameters")
    for name, stored in manifest.tied.items():
        weights.add(_text(f"{name} is {stored}"))
    files = tree.add(f"files: {decimal(sum(entry.size for entry in manifest.files.values()))}")
    for name, entry in sorted(manifest.files.items()):
        files.add(_text(f"{name}  {decimal(entry.size)}  ", (entry.sha256[:16], "dim")))
    lineage = tree.add("lineage")
    for link, digest in sorted(bundle.lineage.items()):
        lineage.add(_text(f"{link}  ", digest or ("not known", "yellow")))
    _add(tree.add("config"), {key: value for key, value in config.items() if key not in ("job", "norm_stats")})
    if isinstance(config.get("norm_stats"), dict):
        _add(tree.add("norm stats"), {k: v for k, v in config["norm_stats"].items() if k != "original"})
    job = config.get("job") or {}
    _add(tree.add("job"), {key: job[key] for key in ("preset", "model", "policy") if key in job})
    SafeConsole(width=1000).print(tree)  # a digest that is wrapped or cut cannot be copied


def model_of(bundle: Bundle) -> ModelConfig:
    """The architecture that the bundle's ``config.json`` names.

    Raises:
        InvalidJob: it names none, or not one of this release.
    """
    return build_config(bundle.job, f"{bundle.path}/config.json").model


def _add(branch: Tree, values: Mapping[str, Any]) -> None:
    """Nested values, one line each; lists and texts abridged."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            _add(branch.add(_text(str(key))), value)
        else:
            text = str(value)
            branch.add(_text(f"{key}  ", (text if len(text) <= 90 else text[:87] + "...", "dim")))


def _text(*parts: str | tuple[str, str]) -> Text:
    """One line of what others wrote, some of it with a style."""
    shown = (escaped(part) if isinstance(part, str) else (escaped(part[0]), part[1]) for part in parts)
    return Text.assemble(*shown)
