"""The documentation is true: its examples run, its commands exist, its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import inspect
import io
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

import aligner_integrations
from aligner_integrations import Aligner
from aligner_integrations.cli.app import app
from tests.docs.pages import (
    CARD,
    PAGES,
    PROSE,
    ROOT,
    Block,
    read_anchors,
    read_blocks,
    read_links,
)

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "aligner_integrations").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]
BY_NAME = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
COMMANDS = [
    (f"{page.name}:{block.line}", line.removeprefix("$ ").split(" #")[0].strip())
    for page in PROSE
    for block in read_blocks(page)
    if block.language in ("sh", "console")
    for line in block.code.splitlines()
    if block.language == "sh" or line.startswith("$ ")
]


def check_output(wanted: str, printed: str, where: str) -> None:
    """Raise AssertionError unless the output is the documented one; ``...`` stands for anything."""
    texts = [text.rstrip("\n") + "\n" for text in (wanted, printed)]  # a stream ends without one
    matches = doctest.OutputChecker().check_output(*texts, doctest.ELLIPSIS)
    assert matches, f"{where} says\n{wanted}\nbut the output is\n{printed}"


@BY_NAME
@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_examples(page: Path, aligner: Aligner) -> None:
    """A page's blocks run in one namespace, in order, and print what the page shows."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    blocks = read_blocks(page)
    for block, following in zip_longest(blocks, blocks[1:]):
        where = f"{page.name}:{block.line}"
        if not block.can_run:
            continue
        code = compile("\n" * block.line + block.code, str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)  # noqa: S102 - our own documentation
        shown = following.code if following and following.is_output else ""
        check_output(shown, printed.getvalue(), where)


@BY_NAME
def test_outputs_have_a_source(page: Path) -> None:
    blocks = read_blocks(page)
    for before, block in pairwise(blocks):
        if block.is_output:
            assert before.can_run, f"{page.name}:{block.line} shows the output of nothing"


@pytest.mark.parametrize(
    ("where", "block"),
    [
        (f"{page.name}:{block.line}", block)
        for page in PAGES
        for block in read_blocks(page)
        if block.language == "python" and not block.can_run
    ],
)
def test_examples_that_cannot_run_here(where: str, block: Block) -> None:
    """Their imports work, and their calls of our classes have arguments that exist."""
    tree = ast.parse(block.code)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            names |= {alias.name: getattr(module, alias.name) for alias in node.names}
    called = 0
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        target = eval(ast.unparse(node.func), dict(names))  # noqa: S307 - our own documentation
        keywords = {keyword.arg: None for keyword in node.keywords if keyword.arg}
        inspect.signature(target).bind(*node.args, **keywords)
        called += 1
    assert called, where


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module: str, aligner: Aligner) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as report:
        results = doctest.testmod(importlib.import_module(module))
    assert results.attempted
    assert not results.failed, report.getvalue()


@pytest.mark.parametrize(("where", "line"), COMMANDS)
def test_commands_exist(where: str, line: str) -> None:
    """``aligner`` parses its subcommands and options; make has the targets; scripts are there."""
    command = shlex.split(line.rsplit("|", maxsplit=1)[-1])
    if command[0] in ("accelerate", "torchrun"):  # launchers of our own module
        command = command[command.index("aligner_integrations.cli") :]
        command[0] = "aligner"
    if command[0] == "aligner":
        parse(command[1:])
    elif command[0] == "make":
        targets = [word for word in command[1:] if "=" not in word]
        assert set(targets) <= list_targets(), where
    elif command[0].startswith(".venv/bin/"):
        paths = [ROOT / word for word in command[1:] if word.endswith(".py")]
        assert all(path.is_file() for path in paths), where
    else:
        assert command[0] == "pip", f"{where}: {line} is not checked by any test"


def test_extras_exist() -> None:
    named = {
        extra
        for page in PROSE
        for extra in re.findall(r"(?:aligner-integrations|'\.|`)\[([a-z]+)\]", page.read_text())
    }
    assert {"langchain", "llamaindex", "all", "demo"} <= named
    assert named <= set(metadata("aligner-integrations").get_all("Provides-Extra") or ())


def parse(arguments: list[str]) -> None:
    """Parse a command line of ``aligner`` without running it."""
    command: Any = typer.main.get_command(app)
    words = list(arguments)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    if hasattr(command, "commands"):
        assert words in (["--version"], ["--help"]), f"aligner has no command {words}"
    else:
        command.make_context(command.name, words)


def list_targets() -> set[str]:
    """What ``make help`` lists."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    done = subprocess.run(  # noqa: S603 - make of this repository
        [make, "help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(re.findall(r"^([a-z-]+)  ", done.stdout, flags=re.MULTILINE))


def test_make_targets_in_the_text_exist() -> None:
    named = {
        target for page in PROSE for target in re.findall(r"`make ([a-z-]+)", page.read_text())
    }
    assert {"demo", "test", "docs", "bench", "lint"} <= named
    assert named <= list_targets()


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (f"{page.name}:{block.line}", block.code)
        for page in PAGES
        for block in read_blocks(page)
        if block.language == "console"
    ],
)
def test_console_sessions(where: str, code: str) -> None:
    """What a page shows behind ``$ aligner ...`` is what the command prints."""
    for session in re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]:
        line, _, shown = session.partition("\n")
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        check_output(shown, result.output, where)
        assert result.exit_code == 0


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        assert f"## aligner {name}\n" in page
        for parameter in command.params:
            for option in getattr(parameter, "opts", []):
                assert not option.startswith("-") or f"`{option}`" in page, option
        for subcommand in getattr(command, "commands", {}):
            assert f"aligner {name} {subcommand}" in page


@pytest.mark.parametrize("page", [*PROSE, CARD], ids=lambda path: str(path.relative_to(ROOT)))
def test_links(page: Path) -> None:
    for link in read_links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert ROOT in target.parents
        assert not anchor or anchor in read_anchors(target), f"{page.name} links to {link}"


def test_navigation_has_every_page() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    listed = re.findall(r"[\w.-]+\.md", str(config["nav"]))
    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_site_builds(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - mkdocs of this environment
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "langchain.html").is_file()
    assert aligner_integrations.__version__ in (tmp_path / "changelog.html").read_text()


def test_changelog_has_this_version() -> None:
    version = re.escape(aligner_integrations.__version__)
    assert re.search(rf"^## {version} - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_presets_and_public_names_are_documented() -> None:
    from aligner_integrations.prompts import KNOWN_MODELS, PRESETS

    prompts = (ROOT / "docs" / "prompts.md").read_text()
    assert all(f"| `{name}` |" in prompts for name in PRESETS)
    assert all(f"`{model}`" in prompts for model in KNOWN_MODELS)
    prose = "".join(page.read_text() for page in PROSE)
    names = set(aligner_integrations.__all__) - {"__version__", "CorrectionStats", "Edit"}
    assert [name for name in names if f"`{name}`" not in prose] == []
