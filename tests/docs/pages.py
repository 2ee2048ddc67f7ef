"""Reading Markdown pages: code blocks, links and headings."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROSE = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CARD = ROOT / "aligner_integrations" / "models" / "smol" / "README.md"

_FENCE = re.compile(r"^```(\w*) ?(.*)$")
_SETUP = "<!-- setup"
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block, or the comment ``<!-- setup`` with code that readers do not see.

    ``title="output"`` marks what the block before prints. ``title="needs ..."`` marks code that
    can't run here.
    """

    language: str
    info: str
    code: str
    line: int

    @property
    def is_output(self) -> bool:
        return 'title="output"' in self.info

    @property
    def can_run(self) -> bool:
        return self.language == "python" and 'title="needs ' not in self.info


def read_blocks(path: Path) -> list[Block]:
    """All blocks of a page in order."""
    blocks: list[Block] = []
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if not fence and line != _SETUP:
            continue
        language, info = fence.groups() if fence else ("python", "")
        end = "```" if fence else "-->"
        code = []
        for _, inner in lines:
            if inner == end:
                break
            code.append(inner)
        else:
            raise ValueError(f"{path.name}:{number}: this block has no end")
        blocks.append(Block(language, info, "\n".join(code) + "\n", number))
    return blocks


def read_links(path: Path) -> list[str]:
    """Link targets of a page, code left out."""
    text = _strip_code(path.read_text(encoding="utf-8"))
    return [target for target in _LINK.findall(text) if "://" not in target]


def read_anchors(path: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = _HEADING.findall(_strip_code(path.read_text(encoding="utf-8")))
    return {slugify(heading.replace("`", "").replace("*", ""), "-") for heading in headings}


def _strip_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
