"""What the pages of the site show of the code, written anew at every build, so that none of it can be old.

A line `<!-- generated: NAME -->` in a page becomes what `GENERATED[NAME]()` says, in Markdown.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import tyro

import jaxppo
from jaxppo.__main__ import COMMANDS
from jaxppo.config.layers import PRESETS, DeviceInfo, resolve
from jaxppo.config.measured import RUNS
from jaxppo.config.schema import GROUPS
from jaxppo.page.reference import columns_table, rewards_table, rules_table
from jaxppo.plan.model import part_seconds, run_seconds

MARKER = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_LITERAL = re.compile(r"[*_|<]")
MARKDOWN_LINK = re.compile(r'href="(\.\./[\w/-]+)\.md(#[^"]*)?"')
FLAGS = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)


def own_options(command: str) -> Any:
    """The dataclass of a command's own options: the one that its command line names, or imports only where it runs."""
    for module in ("__main__", "run"):
        names = vars(importlib.import_module(f"jaxppo.{command}.{module}"))
        found = [v for k, v in names.items() if k.endswith("Options") and dataclasses.is_dataclass(v)]
        if found:
            break
    (own,) = found
    return own


def flags(options: Any) -> Iterator[tuple[str, str]]:
    """Each option with its values, and its meaning, as the command's --help has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # tyro names no successor
        parser = tyro.extras.get_parser(options, config=FLAGS)
    for action in parser._actions:
        if action.help and not {"-h", "--help"} & set(action.option_strings):
            metavar = action.metavar if isinstance(action.metavar, str) else " ".join(action.metavar or ())
            values = metavar.replace("{None}|", "").replace("|", " or ")
            meaning = " ".join(action.help.split()).replace("(default: )", "(default: none)")
            yield " ".join([*action.option_strings[:1], values]).strip(), _LITERAL.sub(r"\\\g<0>", meaning)


def table(options: Any) -> str:
    """A row an option."""
    rows = [f"| `{flag}` | {meaning} |\n" for flag, meaning in flags(options)]
    return "| option | meaning |\n|---|---|\n" + "".join(rows) + "\n"


def configuration() -> str:
    """A section a group of fields, and a row for each."""
    sections = [(name, (inspect.getdoc(group) or "").split("\n\n")[0], group) for name, group in GROUPS.items()]
    return "".join(f"## {name}\n\n{says}\n\n{table(group)}" for name, says, group in sections)


def presets() -> str:
    """A row a preset: its budget. The sizes of `auto` are those of a plain CPU's tier."""
    text = (
        "| preset | envs x steps | updates | env steps | validate every | validations | seeds |\n" + "|---" * 7 + "|\n"
    )
    for name in PRESETS:
        c = resolve(name, {}, DeviceInfo("cpu", "", 1, None)).config
        cells = (
            f"`{name}`" + (" (on a CPU)" if name == "auto" else ""),
            f"{c.budget.n_envs:,} x {c.budget.n_steps}",
            f"{c.budget.n_updates:,}",
            f"{c.batch_steps * c.budget.n_updates / 1e6:,.1f}M" + (" each" if c.budget.seeds > 1 else ""),
            str(c.budget.validate_every),
            str(len(c.segments)),
            str(c.budget.seeds),
        )
        text += "| " + " | ".join(cells) + " |\n"
    return text


def plan_model() -> str:
    """A row a run that was measured: what the planner's model says of it, and what it took."""
    text = "| program | update, ms: model | measured | validation, ms: model | measured | run, s: model | measured |\n"
    text += "|---" * 7 + "|\n"
    for run in RUNS:
        cells = [run.title]
        for said, took, unit in (
            (part_seconds(run, run.update), run.update.seconds, 1e3),
            (part_seconds(run, run.validation), run.validation.seconds, 1e3),
            (run_seconds(run), run.seconds, 1.0),
        ):
            cells += [f"{unit * said:,.1f} ({said / took - 1.0:+.0%})", f"{unit * took:,.1f}"]
        text += "| " + " | ".join(cells) + " |\n"
    return text


def commands() -> str:
    """A section a command: what it is for, and a row for each of its own options."""
    text = ""
    for name, purpose in COMMANDS.items():
        module = importlib.import_module(f"jaxppo.{name}.__main__")
        text += f"## {name}\n\n`{module.PROGRAM}`, or `jaxppo {name}`: {purpose}. {module.DESCRIPTION}\n\n"
        if "parse_with_config" in inspect.getsource(module):
            text += "It also takes a flag for every [field of the configuration](configuration.md).\n\n"
        text += table(own_options(name))
    return text


def public() -> str:
    """A section a public name, from its docstring."""
    text = ""
    for name in sorted(set(jaxppo.__all__) - {"__version__"}, key=str.lower):
        thing = getattr(jaxppo, name)
        if inspect.ismodule(thing):  # a command's package, which can be called
            thing = getattr(importlib.import_module("jaxppo.api"), name)
        text += f"## {name}\n\n::: {thing.__module__}.{thing.__qualname__}\n"
        text += "    options:\n      show_root_heading: false\n      show_root_toc_entry: false\n\n"
    return text


GENERATED: dict[str, Callable[[], str]] = {
    "columns": columns_table,
    "commands": commands,
    "configuration": configuration,
    "plan_model": plan_model,
    "presets": presets,
    "public": public,
    "rewards": rewards_table,
    "rules": rules_table,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs with the text of each page."""
    return MARKER.sub(lambda found: GENERATED[found[1]](), markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Called with the HTML of each page: links from a notebook to a page, which mkdocs leaves as files of Markdown."""
    return MARKDOWN_LINK.sub(r'href="\1.html\2"', html) if page.file.src_uri.endswith(".ipynb") else html
