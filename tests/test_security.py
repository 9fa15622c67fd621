"""Loading what somebody else wrote never runs it, follows it, or lets it fill the memory; secrets are not written."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import pickle
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from helpers import TINY

from jaxppo.backtest.facts import read_manifest
from jaxppo.config.checks import check_config
from jaxppo.config.layers import MAX_YAML, load_config, replace_fields
from jaxppo.config.schema import Config, to_dict
from jaxppo.errors import CheckpointError, ConfigError, DataError, RunDirectoryError
from jaxppo.market.orders import load_decisions
from jaxppo.market.synthetic import synthetic_market
from jaxppo.page.run import write_report
from jaxppo.store.checkpoint import restore_policy, restore_train_state
from jaxppo.store.checkpoint_info import survey
from jaxppo.store.checksums import seal
from jaxppo.store.directory import earlier_manifest
from jaxppo.store.npz import read_npz
from jaxppo.store.read import load_gate, load_run
from jaxppo.train.__main__ import main

PACKAGE = Path(__file__).resolve().parent.parent / "jaxppo"
SECRET = "sk-7f3a9c-not-to-be-written"
# Two names that a page, a console, a chart, a spreadsheet or a file system would take for more than a name.
SYMBOLS = ("../../[/x]$\\frac{<b>&'\"", "<script>alert(1)</script>")


# The source


def parsed() -> Iterator[tuple[Path, ast.AST]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield path, node


MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "cloudpickle",
    "dill",
    "joblib",
    "shelve",
    "marshal",
    "torch",
    "code",
    "runpy",
}
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
ATTRIBUTES = {
    ("yaml", "load_all"),
    ("yaml", "unsafe_load"),
    ("yaml", "full_load"),
    ("np", "load"),
    ("numpy", "load"),
    ("os", "system"),
    ("os", "popen"),
    ("pl", "read_csv_batched"),
}
READERS = {"read_pickle", "loadtxt", "genfromtxt", "extractall", "unpack_archive", "urlopen", "urlretrieve"}


def forbidden(node: ast.AST) -> str | None:
    """What in this node would run or unpack what a file holds, or fetch one."""
    if isinstance(node, ast.Import):
        found = {a.name.split(".")[0] for a in node.names} & MODULES
        return f"import {sorted(found)[0]}" if found else None
    if isinstance(node, ast.ImportFrom):
        return f"from {node.module}" if (node.module or "").split(".")[0] in MODULES else None
    if isinstance(node, ast.keyword):
        on = isinstance(node.value, ast.Constant) and node.value.value is True
        return node.arg if node.arg in ("allow_pickle", "shell") and on else None
    if not isinstance(node, ast.Call):
        return None
    if isinstance(node.func, ast.Name):
        return node.func.id if node.func.id in NAMES else None
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
        pair = (owner, node.func.attr)
        return ".".join(pair) if pair in ATTRIBUTES or node.func.attr in READERS else None
    return None


def test_the_package_has_nothing_that_runs_what_it_reads() -> None:
    found = [(str(p.relative_to(PACKAGE)), what) for p, node in parsed() if (what := forbidden(node))]
    # A plugin is executed: a file that the user names on the command line, and no other (tests/test_plugins.py).
    # Arrays are read without pickled objects, which the next test sees refused.
    assert sorted(found) == [
        ("export/networks.py", "np.load"),  # in a folder of its own, where store is not
        ("export/standalone.py", "np.load"),
        ("plugins.py", "compile"),
        ("plugins.py", "exec"),
        ("store/npz.py", "np.load"),
    ]


class Ran:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (str(self.marker), "w")


def test_arrays_with_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "arrays.npz", tmp_path / "ran"
    np.savez(path, params=np.array([Ran(marker)], dtype=object))
    with pytest.raises(CheckpointError, match=r"arrays\.npz: cannot be read"):
        read_npz(path)
    assert not marker.exists()
    with np.load(path, allow_pickle=True) as unsafe:  # it would have been
        assert unsafe["params"] is not None
    assert marker.exists()


def test_yaml_is_loaded_by_one_function_with_the_plain_loader() -> None:
    calls = [
        (p.name, n.func.attr, [a.id for a in n.args if isinstance(a, ast.Name)])
        for p, n in parsed()
        if isinstance(n, ast.Call)
        and isinstance(n.func, ast.Attribute)
        and isinstance(n.func.value, ast.Name)
        and n.func.value.id == "yaml"
        and "load" in n.func.attr
    ]
    assert calls == [("layers.py", "load", ["text", "_PlainLoader"])]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch.nn",
        "eval('1')",
        "exec(text)",
        "os.system('x')",
        "np.load(f, allow_pickle=True)",
        "yaml.unsafe_load(t)",
        "archive.extractall(p)",
        "run(c, shell=True)",
    ],
)
def test_what_would_be_found(source: str) -> None:
    assert any(forbidden(node) for node in ast.walk(ast.parse(source)))


def test_the_environment_is_read_for_a_few_names_only() -> None:
    """A run directory cannot leak what is never read; the planner passes its own on to a process and writes none.

    Processes of one run look for Slurm's and Open MPI's variables, trackers for where they send and under what name,
    brokers for keys, which they put into no file.
    """
    readers = {
        str(p.relative_to(PACKAGE))
        for p, n in parsed()
        if isinstance(n, ast.Attribute) and n.attr in ("environ", "getenv")
    }
    assert readers == {"device.py", "hosts.py", "paper/http.py", "plan/packages.py", "store/trackers.py"}


# Configurations


@pytest.mark.parametrize(
    "text",
    [
        "seed: !!python/object/apply:os.system ['touch {marker}']",
        "seed: !!python/object/new:os.system ['touch {marker}']",
        "!!python/object:jaxppo.config.schema.Config {{}}",
        "seed: !!python/name:os.system",
        "data: !!python/object/apply:subprocess.check_output [['touch', '{marker}']]",
    ],
)
def test_tags_that_make_objects_are_refused_and_not_run(text: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    path.write_text(text.format(marker=marker))
    with pytest.raises(ConfigError, match=r"config\.yaml, line 1: not valid YAML \(could not determine a constructor"):
        load_config(path)
    assert not marker.exists()


def test_a_bomb_of_aliases_is_not_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]  # 9^12 items
    path = tmp_path / "config.yaml"
    path.write_text("\n".join([*lines, "features: {features: *a11}"]))
    with pytest.raises(ConfigError, match=r"line 2: not valid YAML \(aliases are not read\)"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000, "not valid YAML"),
        ("seed: " + "9" * 100_000, "not valid YAML"),
        ("seed: 2024-13-45", "not valid YAML"),
        ("x: y\n" * (MAX_YAML // 5 + 1), "larger than a configuration can be"),
        ("features: {features: [" + "x, " * 20_000 + "7]}", "must be of type str, got 7"),
        ("ppo: {gamma: [" + "x, " * 20_000 + "]}", "must be of type float, got"),
        ("data: {data: 'https://user:s3cret@host/bars'}", r"data: addresses \(https:\) are not read"),
    ],
    ids=["nesting", "digits", "date", "size", "list", "message", "address"],
)
def test_configurations_that_only_harm(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        load_config(path)
    assert len(str(caught.value)) < 1_000
    assert "s3cret" not in str(caught.value)


def test_a_configuration_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize("data", ["https://a/b", "s3://bucket/x", "FILE:/x", "http:/collapsed"])
def test_addresses_are_refused_before_anything_is_said(data: str) -> None:
    with pytest.raises(ConfigError, match=r"data: addresses \(\w+:\) are not read; download the files"):
        check_config(replace_fields(Config(), {"data": data}))
    for path in ("bars/", "C:\\bars", "c:/bars", "./a:b/c"):
        check_config(replace_fields(Config(), {"data": path}))


def test_decisions_are_read_from_files_only_and_never_more_than_bars(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in (tmp_path / "pipe.csv", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match="not a regular file"):
            load_decisions(path, 10)
    many = tmp_path / "many.csv"
    many.write_text("bar,target\n" + "".join(f"{i},1\n" for i in range(200_000)))
    with pytest.raises(DataError, match=r"many\.csv, line 12: bar 10 is not among the 10 bars"):
        load_decisions(many, 10)


# A whole run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny run on symbols of evil names, with a secret in the environment; its directory and what it printed."""
    base = tmp_path_factory.mktemp("base")
    bars = base / "bars"
    bars.mkdir()
    frames = []
    for symbol, b in zip(SYMBOLS, synthetic_market(0, 2, 900), strict=True):
        columns = {name: getattr(b, name) for name in ("open", "high", "low", "close", "volume")}
        frames.append(pl.DataFrame({"timestamp": b.time, **columns, "symbol": symbol}))
    pl.concat(frames).write_parquet(bars / "bars_1h.parquet")
    line = []
    for name, value in {**TINY, "learning_rate": 3e-4}.items():
        values = value if isinstance(value, tuple) else (value,)
        line += [f"--{name.replace('_', '-')}", *map(str, values)]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        for name in ("API_KEY", "AWS_SECRET_ACCESS_KEY", "JAXPPO_TOKEN"):
            patch.setenv(name, SECRET)
        patch.chdir(base)
        code = main(["--run-dir", str(base / "runs" / "one"), "--data", str(bars), *line])
    assert code == 0, out.getvalue()
    return base / "runs" / "one", out.getvalue()


def test_secrets_stay_in_the_environment(run: tuple[Path, str]) -> None:
    path, said = run
    files = [p for p in path.rglob("*") if p.is_file()]
    assert len(files) > 10
    assert not [p for p in files if SECRET.encode() in p.read_bytes() or SECRET in p.name]
    assert SECRET not in said


def test_names_of_symbols_do_not_become_paths(run: tuple[Path, str]) -> None:
    path, _ = run
    base = path.parent.parent
    assert sorted(p.name for p in base.iterdir()) == ["bars", "runs"]
    assert [p.name for p in path.parent.iterdir()] == ["one"]
    assert not [p for p in path.rglob("*") if "script" in p.name or "frac" in p.name]


def test_names_of_symbols_are_text_on_the_page(run: tuple[Path, str]) -> None:
    page = (run[0] / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page  # nor in the data of charts, which stands in script blocks
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<b>&'" not in page
    assert "default-src 'none'" in page


def test_a_run_on_doubtful_bars_says_so_first_and_keeps_it(run: tuple[Path, str]) -> None:
    path, said = run
    (line,) = [line for line in said.splitlines() if "warning: time zone in" in line]
    assert "python -m jaxppo.data check" in line  # bars round the clock are no equity's
    assert said.index("warning: time zone") < said.index("compiled in")
    assert '"warnings": [\n      "time zone in ' in (path / "manifest.json").read_text()


class Trap:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.marker),)


class Ear:
    """What any Python code, of any library, looks up for a pickle, opens or starts while it listens."""

    def __init__(self) -> None:
        self.heard: dict[str, list[str]] = {}
        self.listens = False
        sys.addaudithook(self._hear)  # for good: hooks cannot be removed

    def _hear(self, event: str, args: tuple[object, ...]) -> None:
        if self.listens and event in ("pickle.find_class", "open", "subprocess.Popen", "os.system", "os.exec"):
            self.heard.setdefault(event, []).append(".".join(map(str, args[: 2 if "pickle" in event else 1])))

    @contextlib.contextmanager
    def listening(self) -> Iterator[dict[str, list[str]]]:
        self.heard = {}
        self.listens = True
        try:
            yield self.heard
        finally:
            self.listens = False


EAR = Ear()


def test_the_trap_works(tmp_path: Path) -> None:
    with EAR.listening() as heard:
        pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))
        (tmp_path / "outside").write_text("x")
    assert (tmp_path / "sprung").exists()
    assert heard == {"pickle.find_class": ["posix.mkdir"], "open": [str(tmp_path / "outside")]}


def test_restoring_unpickles_and_starts_nothing(run: tuple[Path, str]) -> None:
    with EAR.listening() as heard:
        restore_policy(run[0])
        restore_train_state(run[0])
    assert set(heard) <= {"open"}


def test_paths_in_a_run_are_not_followed(run: tuple[Path, str], tmp_path: Path) -> None:
    """A run directory of somebody else's that names files outside of it, wherever it names anything."""
    copy, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(run[0], copy)
    outside.mkdir()
    (outside / "bars_1h.csv").write_text("timestamp,open,high,low,close\n")
    named = str(outside / "bars_1h.csv")
    data = str(run[0].parent.parent / "bars")
    changed = 0
    for file in [p for p in copy.rglob("*") if p.suffix in (".yaml", ".json") or p.name == "_CHECKPOINT_METADATA"]:
        text = file.read_text(encoding="utf-8")
        changed += data in text
        file.write_text(text.replace(data, named), encoding="utf-8")
    for checkpoint in (copy / "checkpoints").iterdir():
        seal(checkpoint)
    assert changed >= 4  # configuration, manifest, and at least two checkpoints
    with EAR.listening() as heard:
        assert restore_policy(copy).info.config.data.data == named
        restore_train_state(copy)
        write_report(copy)
    assert [name for name in heard["open"] if str(outside) in name] == []
    # Nothing is written but the page and its plots, and they only in the run's own folder.
    assert sorted(p.name for p in tmp_path.iterdir()) == ["outside", "run"]


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("protocol", [0, 4])
@pytest.mark.parametrize("where", ["beside", "instead"])
def test_pickles_in_a_checkpoint_are_not_touched(
    run: tuple[Path, str], tmp_path: Path, where: str, protocol: int
) -> None:
    copy, marker = tmp_path / "run", tmp_path / "sprung"
    shutil.copytree(run[0], copy)
    trap = pickle.dumps(Trap(marker), protocol)
    for file in [p for p in (copy / "checkpoints").rglob("*") if p.is_file()]:
        for name in ("checkpoint.pkl", "checkpoint", "__init__.py", "sitecustomize.py", "checkpoint.msgpack"):
            (file.parent / name).write_bytes(trap)
        if where == "instead" and {"train", "policy"} & set(file.parts):
            file.write_bytes(trap)
    with EAR.listening() as heard:
        for restore in (restore_policy, restore_train_state):
            if where == "instead":
                with pytest.raises(CheckpointError):
                    restore(copy)
            else:
                restore(copy)
    assert set(heard) <= {"open"}
    assert not marker.exists()


def test_a_page_is_made_of_a_run_without_running_its_files(run: tuple[Path, str], tmp_path: Path) -> None:
    copy, marker = tmp_path / "run", tmp_path / "ran"
    shutil.copytree(run[0], copy)
    (copy / "config.yaml").write_text(f"seed: !!python/object/apply:os.mkdir ['{marker}']")
    with pytest.raises(RunDirectoryError, match=r"config\.yaml cannot be read"):
        load_run(copy)
    (copy / "config.yaml").write_text(yaml.safe_dump(to_dict(Config())))
    (copy / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(RunDirectoryError, match=r"manifest\.json cannot be read"):
        load_run(copy)
    assert not marker.exists()


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 * 2**30)  # takes no room on the disk, and 8 GiB in memory


def _deep(path: Path) -> None:
    path.write_text(100_000 * "[")


@pytest.mark.parametrize("make", [_pipe, _sparse, _deep])
def test_json_of_a_run_is_bounded_and_not_waited_for(
    run: tuple[Path, str], make: Callable[[Path], None], tmp_path: Path
) -> None:
    """Each file of JSON that a run and its checkpoints are read by, replaced by what only harms."""
    place = tmp_path / "harmed"
    shutil.copytree(run[0], place)
    newest = max((place / "checkpoints").iterdir(), key=lambda p: int(p.name))
    for file in (place / "manifest.json", place / "gate.json", newest / "info.json", newest / "checksums.json"):
        kept = file.read_bytes()
        file.unlink()
        make(file)
        if file.parent == newest:
            assert str(newest.name) in str(survey(newest.parent).damaged)
        elif file.name == "gate.json":
            with pytest.raises(RunDirectoryError, match=r"gate\.json"):
                load_gate(file)
        else:
            for read in (load_run, read_manifest):
                with pytest.raises(RunDirectoryError, match=r"manifest\.json"):
                    read(place)
            assert earlier_manifest(place) == {}
        file.unlink()
        file.write_bytes(kept)
    assert survey(newest.parent).damaged == {}
    load_run(place)
