"""The command line with bad input: exit code 2, one clear line, no traceback, no run directory. And its help."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import polars as pl
import pytest
from helpers import TINY

import jaxppo
from jaxppo.agent.policy import ActorCritic
from jaxppo.config import schema
from jaxppo.config.layers import PRESETS
from jaxppo.config.schema import FIELD_GROUP
from jaxppo.errors import ConfigError
from jaxppo.market.synthetic import synthetic_market
from jaxppo.page.progress import Display
from jaxppo.page.terminal import figure_table, plain_console
from jaxppo.play.metrics import METRICS
from jaxppo.plugins import unload_plugins
from jaxppo.train import run as session
from jaxppo.train.__main__ import main, parse

REPO = Path(__file__).resolve().parent.parent
SMALL = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items() if name != "features"]


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str
    run_dir: Path


Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path, capsys) -> Call:
    """`main` with a run directory of its own, small sizes unless given, and whatever else a test says."""

    def run(*args: str) -> Result:
        run_dir = tmp_path / "run"
        try:
            code = main(["--run-dir", str(run_dir), "--features", "base", *SMALL, *args])
        except SystemExit as stop:  # what tyro makes of a flag that it does not know; a text would exit with 1
            code = stop.code if isinstance(stop.code, int) else 1
        out, err = capsys.readouterr()
        return Result(code, out, err, run_dir)

    return run


def refused(result: Result) -> str:
    """The one line of an error; asserts that it is one, and that nothing was made."""
    assert result.code == 2
    assert "Traceback" not in result.out + result.err
    assert not result.run_dir.exists()
    assert result.err.startswith("error: ")
    assert result.err.count("\n") == 1
    assert result.err.endswith("\n")
    assert len(result.err) < 500
    return result.err.removeprefix("error: ").rstrip("\n")


def refused_flag(result: Result) -> str:
    """The text of the box that tyro draws, in one line."""
    assert result.code == 2
    assert "Traceback" not in result.out + result.err
    assert not result.run_dir.exists()
    assert result.out == ""
    return " ".join(words(result.err))


def words(text: str) -> list[str]:
    return re.sub(r"[│╭╮╰╯─]", " ", text).split()


# Flags


def test_an_unknown_preset_names_the_nearest_and_all(call):
    every = "valid names are 'auto', 'extended', 'production', 'quick_test', 'standard', 'trend'"
    said = refused(call("--preset", "quick"))
    assert said == f"preset: unknown preset 'quick'; did you mean 'quick_test'? {every}"
    assert f"did you mean 'production'? {every}" in refused(call("--preset=producton"))
    assert refused(call("--preset", "xyzzy")) == f"preset: unknown preset 'xyzzy'; {every}"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            ["--reward", "v24"],
            "reward: unknown reward preset 'v24'; did you mean 'v245'?"
            " valid names are 'differential_sharpe', 'log_return', 'v245', 'v33'",
        ),
        (
            ["--encoder", "tnc"],
            "encoder: unknown choice 'tnc'; did you mean 'tcn'? valid names are 'none', 'tcn', 'window_mlp'",
        ),
        (
            ["--actions", "size"],
            "actions: unknown choice 'size'; did you mean 'sized' or 'sized_close'?"
            " valid names are 'hold_buy_sell', 'sized', 'sized_close', 'targets'",
        ),
        (
            ["--encoder", "tcn", "--window", "12"],
            "window: the tcn encoder needs a power of two of at least 2 bars, got 12",
        ),
        (
            ["--features", "bass"],
            "features: unknown feature group 'bass'; did you mean 'base'?"
            " valid names are 'base', 'calendar', 'intraday', 'multi_window', 'regime', 'technical', 'trend'",
        ),
        (
            ["--allow-short", "stocks"],
            "allow_short: unknown asset class 'stocks'; valid names are 'crypto', 'equity', 'fx'",
        ),
        (
            ["--targets", "1", "--actions", "targets"],
            "targets: need at least two different target exposures, got [1.0]",
        ),
        (
            ["--fee", "equity", "0.7"],
            "fee: equity has 0.7; a fee is a fraction of the notional from 0 to 0.5",
        ),
        (["--scale-window", "1"], "scale_window must be at least 2 bars, got 1"),
        (["--n-steps", "0", "--env-steps", "100"], "n_steps: must be above 0, got 0"),
        (
            ["--validation-fraction", "0.4"],
            "train_fraction 0.7 and validation_fraction 0.4 must be above 0 and sum to at most 1",
        ),
        (
            ["--reward-weights", "log_return", "0"],
            "reward_weights: every component has weight 0; give at least one a weight",
        ),
    ],
    ids=lambda x: x[0],
)
def test_a_choice_that_is_not_there_is_refused_before_anything_is_built(call, line, said, monkeypatch):
    monkeypatch.setattr(ActorCritic, "__init__", None)  # building a network would fail
    monkeypatch.setattr(jax, "eval_shape", None)  # and so would tracing one
    monkeypatch.setattr(jax, "jit", None)
    assert refused(call("--data", "nowhere.csv", *line)) == said  # and the file is not looked for


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (["--learning-rat", "1"], ["Unrecognized options: --learning-rat", "--learning-rate FLOAT"]),
        (["--n-envs", "1e3"], ["--n-envs", "1e3"]),
        (["--learning-rate", "fast"], ["--learning-rate", "fast"]),
        (["--fee", "equity"], ["--fee"]),
        (["bars.csv"], ["Unrecognized options: bars.csv"]),
        (["--preset"], ["Missing value for argument '--preset'"]),
    ],
    ids=lambda x: x[0],
)
def test_a_flag_that_cannot_be_understood(call, line, parts):
    text = refused_flag(call(*line))
    for part in parts:
        assert part in text


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--lanes 3", "n_envs 16 is not a multiple of lanes 3: try n_envs 15 or 18, or lanes 2 or 4"),
        ("--minibatches 3", "minibatches 3 does not divide the 4 paths"),
        ("--episode-steps 18", "episode_steps 18 is not a multiple of n_steps 4"),
        ("--learning-rate 0", "learning_rate: must be above 0, got 0.0"),
        ("--learning-rate nan", "learning_rate: must be above 0, got nan"),
        ("--gamma 1.1", "gamma: must be from 0 to 1, got 1.1"),
        ("--stop-loss 2", "stop_loss: must be from 0 to 0.99, got 2"),
        ("--seed -1", "seed: must be from 0 to 2147483647, got -1"),
        ("--keep-checkpoints 0", "keep_checkpoints: must be at least 1, got 0"),
        ("--data /no/such/bars", "/no/such/bars: no such file or folder; give a Parquet or CSV file of bars"),
        ("--resume", "holds no run to resume (config.yaml is missing)"),
    ],
)
def test_a_value_that_does_not_fit(call, line, wanted):
    assert wanted in refused(call(*line.split()))


# Values that are checked against the bars


def table() -> pl.DataFrame:
    """700 good hourly bars with times of no zone."""
    bars = synthetic_market(3, 1, 700)[0]
    columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
    time = pl.Series("timestamp", bars.time * 1_000_000).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S")
    return pl.DataFrame([time, *(pl.Series(k, v) for k, v in columns.items())])


@pytest.fixture
def write(tmp_path) -> Callable[..., str]:
    """Writes a frame as a bar file of XYZ."""

    def to(frame: pl.DataFrame, name: str = "XYZ_1h.csv") -> str:
        path = tmp_path / name
        frame.write_parquet(path) if path.suffix == ".parquet" else frame.write_csv(path)
        return str(path)

    return to


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("--features bas", "features: unknown feature group 'bas'; did you mean 'base'?"),
        ("--features base base", "features must name at least one feature group, each once"),
        ("--symbols XZY", "no symbol 'XZY'; did you mean 'XYZ'?"),
        ("--interval 30m", "no bars at interval 30m; there are 1h (1 symbol)"),
        ("--interval 1x", "interval '1x' is not understood"),
        ("--timezone Mars", "unknown time zone 'Mars'"),
        ("--asset-classes XYZ stock", "unknown asset class 'stock'; valid names are 'crypto', 'equity', 'fx'"),
        ("--fee stock 0.1", "fee: unknown asset class 'stock'"),
        ("--fee equity 0.7", "fee: equity has 0.7; a fee is a fraction of the notional from 0 to 0.5"),
        ("--allow-short stocks", "allow_short: unknown asset class 'stocks'"),
        ("--train-fraction 0.9 --validation-fraction 0.2", "must be above 0 and sum to at most 1"),
        ("--reward-weights pln 1", "reward_weights: unknown component 'pln'; did you mean 'pnl'"),
        ("--reward-weights log_return 0", "reward_weights: every component has weight 0"),
        ("--actions targets --targets 0", "targets: need at least two different target"),
        ("--actions targets --targets -3 0 3", "targets: -3.0 is beyond max_exposure 1.0"),
        ("--window 7", "window: the tcn encoder needs a power of two of at least 2 bars, got 7"),
    ],
)
def test_a_value_that_does_not_fit_the_bars_or_the_program(call, write, line, wanted):
    assert wanted in refused(call("--data", write(table()), "--timezone", "UTC", *line.split()))


# Bars


def put(column: str, row: int, value: float | None) -> pl.DataFrame:
    frame = table()
    values = frame[column].to_list()
    values[row] = value
    return frame.with_columns(pl.Series(column, values))


def swapped() -> pl.DataFrame:
    rows = [*range(50), 51, 50, *range(52, 700)]
    return table()[rows]


# Row 50 of the table is line 52 of its file: the header is line 1.
BAD_BARS = {
    "column": (lambda: table().drop("close"), "XYZ_1h.csv: no column for close among 'timestamp', 'open', 'high'"),
    "duplicate": (
        lambda: pl.concat([table()[:51], table()[50:]]),
        "XYZ_1h.csv, symbol XYZ, line 53: timestamp {50} UTC repeats line 52",
    ),
    "order": (swapped, "XYZ_1h.csv, symbol XYZ, line 53: timestamp {50} UTC comes before {51} UTC of line 52"),
    "nan": (lambda: put("close", 50, np.nan), "XYZ_1h.csv, symbol XYZ, line 52: close nan is not a finite number"),
    "empty": (lambda: put("open", 50, None), "XYZ_1h.csv, symbol XYZ, line 52: open is empty"),
    "zero": (lambda: put("low", 50, 0.0), "XYZ_1h.csv, symbol XYZ, line 52: low 0 is not positive"),
    "negative": (lambda: put("close", 50, -3.5), "XYZ_1h.csv, symbol XYZ, line 52: close -3.5 is not positive"),
    "range": (lambda: put("high", 50, 1.0), "XYZ_1h.csv, symbol XYZ, line 52: high 1 is below low"),
    "warm-up": (lambda: table()[:60], "60 bars in XYZ_1h.csv, but features base with scale_window 32 need at least"),
    "split": (
        lambda: table()[:350],
        "XYZ_1h.csv: too few bars for a validation split: XYZ, the longest there, has 350",
    ),
    "none": (lambda: table()[:0], "XYZ_1h.csv: holds no bars"),
}


@pytest.mark.parametrize("kind", BAD_BARS)
def test_bars_that_cannot_be_used(call, write, kind):
    make, wanted = BAD_BARS[kind]
    times = table()["timestamp"]
    for row in (50, 51):
        wanted = wanted.replace(f"{{{row}}}", times[row])
    assert wanted in refused(call("--data", write(make()), "--timezone", "UTC"))


def test_rows_of_parquet_count_from_zero(call, write):
    text = refused(call("--data", write(put("close", 50, -1.0), "XYZ_1h.parquet"), "--timezone", "UTC"))
    assert text == "XYZ_1h.parquet, symbol XYZ, row 50: close -1 is not positive"


def test_naive_times_need_a_zone(call, write):
    text = refused(call("--data", write(table())))
    assert text.startswith(f"XYZ_1h.csv, symbol XYZ, line 2: timestamp '{table()['timestamp'][0]}' has no time zone")
    assert "--timezone" in text


def test_a_folder_of_several_intervals_asks_which(call, write, tmp_path):
    folder = tmp_path / "bars"
    folder.mkdir()
    for name in ("XYZ_1h.csv", "XYZ_1d.csv"):
        write(table(), f"bars/{name}")
    text = refused(call("--data", str(folder)))
    assert text == (f"{folder}: bars of several intervals, 1h (1 symbol), 1d (1 symbol); choose one with --interval")


def test_a_file_that_is_none(call, tmp_path):
    (tmp_path / "bars.csv").write_bytes(bytes(range(256)) * 8)
    assert refused(call("--data", str(tmp_path / "bars.csv"))).startswith("bars.csv: ")
    (tmp_path / "notes.md").write_text("no bars")
    assert "notes.md: not a bar file" in refused(call("--data", str(tmp_path / "notes.md")))


# What counts as given


def test_only_flags_on_the_command_line_are_given():
    options, preset, given, _ = parse(["--learning-rate", "3e-4", "--n-envs=64", "--no-normalize-advantages"])
    # The first is the schema's default: it was given all the same, and beats the preset's.
    assert given == {"learning_rate": 3e-4, "n_envs": 64, "normalize_advantages": False}
    assert preset is None
    assert (options.run_dir, options.resume) == (None, False)


def test_flags_take_dashes_or_underscores():
    _, preset, given, _ = parse(["--preset=standard", "--n_envs", "64", "--symbols", "A", "B", "--fee", "fx", "0.1"])
    assert preset == "standard"
    assert given == {"n_envs": 64, "symbols": ("A", "B"), "fee": {"fx": 0.1}}


def test_negative_targets_are_values_not_flags():
    assert parse(["--targets", "-1", "-0.5", "0", "1"])[2] == {"targets": (-1.0, -0.5, 0.0, 1.0)}


# Help


def docstrings(cls: type) -> dict[str, str]:
    """The string under each field of a dataclass."""
    (tree,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(tree, ast.ClassDef)
    texts = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            assert isinstance(field.target, ast.Name)
            texts[field.target.id] = str(text.value.value)
    return texts


@pytest.fixture(scope="module")
def help_text() -> str:
    """`--help` without its boxes and line breaks."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    return " ".join(words(out.getvalue()))


@pytest.mark.parametrize("name", ["preset", "seed", *FIELD_GROUP, "run_dir", "resume", "keep_checkpoints"])
def test_help_explains_every_flag(help_text, name):
    classes = [schema.Config, schema.BarsFilter, *schema.GROUPS.values(), session.RunOptions]
    texts = {k: v for cls in classes for k, v in docstrings(cls).items()}
    assert re.search(f"--{name.replace('_', '-')}[ ,]", help_text)
    assert f"{' '.join(texts[name].split())} (default: " in help_text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ([], {"n_envs": "2048", "gamma": "0.99", "n_updates": "40"}),
        (["--preset", "production"], {"n_envs": "131072", "compute_dtype": "float32"}),
        (["--preset", "auto"], {"n_envs": "2048", "n_updates": "7630"}),  # of a CPU, and derived from its env steps
        (["--reward", "v245"], {"gamma": "0.995", "reward": "v245"}),
        (["--preset", "production", "--preset", "quick_test"], {"n_envs": "2048"}),
        (["--config", "own.yaml"], {"gamma": "0.9", "interval": "1h", "n_envs": "16384"}),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_help_shows_the_defaults_in_force(line, shown, tmp_path, monkeypatch, capsys):
    (tmp_path / "own.yaml").write_text("preset: standard\nppo: {gamma: 0.9}\ndata: {interval: 1h}\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*line, "--help"])
    assert stop.value.code == 0
    text = " ".join(words(capsys.readouterr().out))
    for name, value in shown.items():
        flag = name.replace("_", "-")
        assert re.search(rf"--{flag} (?:(?! --).)*?\(default: {re.escape(value)}\)", text), name


def test_what_an_own_file_lacks_the_command_line_may_add(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("data: {interval: 1h}\nbudget: {lanes: 48}\n")
    request = parse(["--config", str(path), "--data", "bars", "--n-envs", "768"])
    assert request.resolve(None).config.data.interval == "1h"
    with pytest.raises(ConfigError, match="interval: describes --data"):
        parse(["--config", str(path), "--n-envs", "768"]).resolve(None)


def test_an_own_file_may_name_what_a_plugin_registers(tmp_path):
    plugin, path = tmp_path / "my.py", tmp_path / "own.yaml"
    plugin.write_text(
        "import jaxppo\nfrom jaxppo.config.rewards import RewardPreset\n"
        "jaxppo.register(RewardPreset('sevenfold', {'log_return': 7.0}, 'of the test', brings={'gamma': 0.5}))\n"
    )
    path.write_text("reward: {reward: sevenfold}\n")
    try:
        config = parse(["--config", str(path), "--plugin", str(plugin)]).resolve(None).config
    finally:
        unload_plugins()
    assert (config.reward.reward, config.ppo.gamma) == ("sevenfold", 0.5)


def test_presets_are_those_of_the_configs_folder():
    assert sorted(p.stem for p in (REPO / "configs").glob("*.yaml")) == sorted(PRESETS)


# In a process of its own


def test_the_process_exits_with_2_and_one_line(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "jaxppo.train", "--data", "nowhere.csv"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere.csv: no such file or folder" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []  # nor a runs/ folder where it was started


@pytest.mark.parametrize("status", [0, 2, 130])
def test_a_command_ends_at_once_with_its_status_and_all_that_was_printed(status):
    # What would crash while the interpreter is torn down never gets the chance, and no thread keeps the process.
    late = "import atexit, os, threading; atexit.register(os._exit, 11); threading.Thread(target=input).start(); "
    code = f"{late}from jaxppo.cli import leave; print('said', end=''); leave({status})"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.wait(timeout=60) == status  # the thread would wait for a line until the pipe is closed
        assert process.stdout is not None
        assert process.stdout.read() == "said"


@pytest.mark.parametrize(
    ("line", "fee"),
    [
        (["--fee", "0.001"], {"equity": 0.001, "crypto": 0.001, "fx": 0.001}),
        (["--fee", "1E-3"], {"equity": 0.001, "crypto": 0.001, "fx": 0.001}),
        (["--fee=2e-4", "--spread", "0.1"], {"equity": 0.0002, "crypto": 0.0002, "fx": 0.0002}),
        (["--fee", "fx", "0.1", "crypto", "0"], {"fx": 0.1, "crypto": 0.0}),
    ],
    ids=["one number", "with a large E", "with an equals sign", "by class"],
)
def test_a_fee_is_one_number_or_one_a_class(line, fee):
    assert parse(line).given["fee"] == fee


# Output


def test_piped_lines_and_tables_are_whole():
    piped = io.StringIO()
    console = plain_console(piped)
    long = "a line of many words " * 100 + "[red] and its end"  # what looks like markup is text
    console.print(long)
    Display(1, 1, console).say(long)
    name = "A" * 300
    row = {m.column: 0.0 for m in METRICS.values()}
    console.print(figure_table("a title that is longer than nothing", "symbol", [(name, row)]))
    lines = piped.getvalue().splitlines()
    assert lines[:2] == [long, long]
    (figures,) = [line for line in lines if name in line]
    assert len(figures.split()) == 1 + sum(bool(m.terminal) for m in METRICS.values())
    assert "\N{HORIZONTAL ELLIPSIS}" not in piped.getvalue()
    assert max(map(len, lines[2:])) < 1000  # and none is padded


def test_every_command_has_the_one_console():
    package = Path(jaxppo.__file__).parent
    makers = [str(p.relative_to(package)) for p in package.rglob("*.py") if re.search(r"\bConsole\(", p.read_text())]
    assert makers == ["page/terminal.py"]
