"""The fenced blocks of README and of the documents, run as a reader would run them, at sizes of seconds."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from markdown_it import MarkdownIt

from docs.hooks import own_options
from jaxppo.cli import Request, parse_options, parse_with_config
from jaxppo.config.layers import DeviceInfo

ROOT = Path(__file__).parents[1]
PAGES = {str(p.relative_to(ROOT)): p for p in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))}
RUN = ("python", "sh")
SMALL = {
    "n_envs": 16,
    "lanes": 4,
    "n_steps": 4,
    "episode_steps": 16,
    "epochs": 1,
    "minibatches": 1,
    "window": 8,
    "channels": 4,
    "trunk_width": 8,
    "trunk_layers": 1,
}
"""Sizes at which what a document trains takes seconds."""
_COMMENT = re.compile(r"<!-- (not run: (?P<reason>.+?)|(?P<slow>slow)|ends with status (?P<status>\d+)) -->")
_COMMAND = re.compile(r"^(?:python -m jaxppo\.|jaxppo )(?P<name>\w+)(?: (?P<rest>.*))?$")
_EXTRA = re.compile(r"\[([\w,-]+)\]")
_SNIPPET = re.compile(r'^--8<-- "(.+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, and what the comments right above it say of how it is run."""

    page: str
    line: int  # of the fence, from 1
    language: str
    code: str
    file: str | None  # its title: the block is a file of the reader's folder
    reason: str | None  # why it is not run
    slow: bool
    status: int  # that its last command ends with

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(name: str) -> Iterator[Block]:
    """The blocks of a page, in order."""
    said = ""
    for token in MarkdownIt("commonmark").parse(PAGES[name].read_text(encoding="utf-8")):
        if token.type == "fence":
            language, _, rest = token.info.partition(" ")
            title = re.search(r'title="(.+?)"', rest)
            found: dict[str, Any] = {}
            for comment in _COMMENT.finditer(said):
                found |= {k: v for k, v in comment.groupdict().items() if v}
            code = _SNIPPET.sub(lambda m: (ROOT / m[1]).read_text(encoding="utf-8"), token.content)
            yield Block(
                name,
                (token.map or [0])[0] + 1,
                language,
                code,
                title[1] if title else None,
                found.get("reason"),
                "slow" in found,
                int(found.get("status", 0)),
            )
        said = said + token.content if token.type == "html_block" else ""


def commands(block: Block) -> Iterator[str]:
    """The lines of a shell block without comments, those that go on with a backslash as one."""
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words:
            yield " ".join(shlex.quote(w) if re.search(r"[^\w./=:,+@%-]", w) else w for w in words)


def parsed(command: str, where: str) -> tuple[ModuleType, list[str]] | None:
    """The module of a jaxppo command and its arguments, which its own parser takes; None for another command."""
    found = _COMMAND.match(command)
    if found is None:
        return None
    module = importlib.import_module(f"jaxppo.{found['name']}.__main__")
    arguments = shlex.split(found["rest"] or "")
    if "--help" in arguments:
        return module, arguments
    options = own_options(found["name"])
    if "parse_with_config" in inspect.getsource(module):  # which may be imported only where it runs
        request: Request[Any] = parse_with_config(arguments, where, "", options)
        request.resolve(DeviceInfo("cpu", "", 1, None))
    else:
        parse_options(arguments, where, "", options)
    return module, arguments


def check_other(command: str, where: str) -> None:
    """What is no command of jaxppo's and is not run: `make` has the target, an extra that is installed is there."""
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), (
            f"{where}: no target {words[1]}"
        )
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for named in _EXTRA.findall(command):
            assert set(named.split(",")) <= set(extras), f"{where}: no extra {named}"
    else:
        raise AssertionError(f"{where}: {command!r} is not understood; say `<!-- not run: REASON -->` above the block")


def run_block(block: Block, folder: Path, names: dict[str, Any], quick: bool) -> None:
    """Run a block in the current folder, `folder`; with `quick`, slow blocks are parsed or compiled and no more."""
    if block.file is not None:
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.code)
        return
    if block.reason is not None or block.language not in RUN:
        return
    if block.language == "python":
        code = compile(block.code, block.place, "exec")
        if not (quick and block.slow):
            exec(code, names)
        return
    statuses = [_run_command(command, block, quick) for command in commands(block)]
    assert statuses[-1] in (block.status, None), f"{block.place}: ended with status {statuses[-1]}"
    assert not any(statuses[:-1]), f"{block.place}: statuses {statuses}"


def _run_command(command: str, block: Block, quick: bool) -> int | None:
    """The exit status; None for what is not run."""
    command, _, file = command.partition(" '>' ")
    jaxppo = parsed(command, block.place)
    if jaxppo is None and not command.startswith("python policy/"):
        check_other(command, block.place)
        return None
    if quick and block.slow:
        return None
    if jaxppo is None:  # a program that an export wrote
        return subprocess.run([sys.executable, *shlex.split(command)[1:]]).returncode
    main: Callable[[list[str]], int] = jaxppo[0].main
    trains = jaxppo[0].__name__ == "jaxppo.check.__main__" and not {"lookahead", "parity", "reward"} & set(jaxppo[1])
    smaller = ("--effort", "0.02") if trains else ()  # with so little of it these checks may rightly fail
    try:
        with contextlib.redirect_stdout(Path(file).open("w")) if file else contextlib.nullcontext():
            status = main([*jaxppo[1], *smaller])
            return 0 if smaller and status == 1 else status
    except SystemExit as ended:
        return int(ended.code or 0)
