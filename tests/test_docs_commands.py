"""README and docs/ say what exists: commands, config keys, links, and pages that the code names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_commands import all_blocks, blocks, problems, wrong_keys
from readme_lines import README, ROOT, pages

LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]+)?\)")


def test_every_command_is_understood():
    found = all_blocks()
    assert [problem for block in found for problem in problems(block)] == []
    assert sum(block.commands != () for block in found) > 40, "the blocks are no longer found"


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("rlinf-isaac evall", "no verb evall"),
        ("rlinf-isaac eval --ckpt-roots D", "--ckpt-roots"),
        ("rlinf-isaac eval", "--ckpt-root"),
        ("rlinf-isaac eval --ckpt-root D --engine ray", "'ray' is not one of"),
        ("rlinf-isaac serve models:/a@b more", "unexpected more"),
        ("rlinf-isaac doctor sft --dataset D --stepss 4", "--stepss"),
        ("rlinf-isaac doctor env --task D --robots 4", "--robots"),
        ("rlinf-isaac sft --dataset D --overrides sft.batchsize=4", "no key sft.batchsize"),
        ("rlinf-isaac sft --dataset D --overrides rl.lr=4", "sft reads no rl.lr"),
        ("A=1 srun rlinf-isaac sft", "--dataset"),
        ("torchrun -m mlflow_project.cli sft --base B --nodes 2", "--nodes"),
        ("mlflow run . -e evall", "no entry point evall"),
        ("mlflow run . -e eval -P ckpt_root=D -P ckpt-steps=4", "no parameter ckpt-steps"),
        ("mlflow run . -e eval -P ckpt_root=D -P engine=ray", "'ray' is not one of"),
        ("mlflow run . -e eval -P ckpt_steps=4", "eval needs ckpt_root"),
        ("mlflow run . -E eval", "no -E"),
        ("ls && rlinf-isaac \\\n    synk", "no verb synk"),
    ],
)
def test_a_wrong_command_is_found(command, word):
    for text in (f"```bash\n{command}\n```\n", "text:\n\n    " + command.replace("\n", "\n    ")):
        (block,) = blocks("<!-- needs: a GPU -->\n\n" + text)
        assert word in "\n".join(problems(block))


@pytest.mark.parametrize("command", ["rlinf-isaac main --device cuda", "torchrun train.py", "ssh box"])
def test_what_needs_another_machine_says_so(command):
    text = f"```bash\n{command}\n```\n"
    (silent,) = blocks(text, "docs/page.md")
    (marked,) = blocks(f"<!-- needs: a GPU -->\n{text}", "docs/page.md")
    assert "docs/page.md:2: needs a GPU" in next(problems(silent))
    assert list(problems(marked)) == []
    (other,) = blocks(f"<!-- needs: a GPU -->\n\nMore text.\n\n{text}", "docs/page.md")
    assert other.needs is None


def test_every_config_key_exists():
    assert list(wrong_keys("`sft.lr` `sft.lr=3` `sft.augment` `sft.nothing` `compute.nothing=3`")) == [
        "sft.nothing",
        "compute.nothing",
    ]
    assert {str(page): found for page in pages() if (found := list(wrong_keys(page.read_text())))} == {}


def test_readme_is_short_and_begins_with_a_picture():
    lines = README.read_text().splitlines()
    assert len(lines) <= 150
    picture = next(number for number, line in enumerate(lines) if line.startswith("!["))
    assert picture < next(number for number, line in enumerate(lines) if line.startswith("    "))


def slug(heading: str) -> str:
    """The anchor that GitHub and the site give a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text).strip().lower().replace(" ", "-")


@pytest.mark.parametrize("page", [*ROOT.glob("*.md")], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Those of docs/ are checked by ``mkdocs build --strict``."""
    for path, anchor in LINK.findall(page.read_text()):
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if anchor and target.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor[1:] in map(slug, headings), f"{page.name} links to {path}{anchor}"


def test_pages_that_the_code_names_exist():
    sources = [
        path for room in ("rlinf_isaac", "mlflow_project", "tests", ".ci") for path in (ROOT / room).rglob("*.py")
    ]
    sources += [ROOT / "CONTRIBUTING.md", *ROOT.glob("examples/**/*.yaml")]
    named = {name for path in sources for name in re.findall(r"\bdocs/(\w+\.md)\b", path.read_text())}
    assert {name for name in named if not Path(ROOT / "docs" / name).exists()} == {"page.md"}  # of the tests of pages
    assert len(named) > 10
