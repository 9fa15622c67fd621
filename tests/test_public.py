"""The public names, the console command, and the examples."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import TINY

import jaxppo
import jaxppo.api
import jaxppo.registry
import jaxppo.store.trackers
from jaxppo.__main__ import COMMANDS, main
from jaxppo.errors import ConfigError, DataError, JaxppoError
from jaxppo.market.bars import slice_bars

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, **options)


def test_importing_the_package_loads_no_jax():
    done = run("-c", "import sys, jaxppo; assert not {'jax', 'numpy', 'polars'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_every_public_name_is_there_and_documented():
    assert set(jaxppo.__all__) <= set(dir(jaxppo))
    for name in jaxppo.__all__:
        assert inspect.getdoc(getattr(jaxppo, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxppo.nothing  # noqa: B018


@pytest.mark.parametrize("first", ["import jaxppo.train.run", "import jaxppo; jaxppo.train", "import jaxppo.train"])
def test_a_command_is_a_function_whatever_was_imported_first(first):
    code = f"{first}; import jaxppo; from jaxppo import train; import inspect\n"
    code += "assert callable(jaxppo.train) and train is jaxppo.train\n"
    code += "import sys; assert not {'gymnasium', 'torch'} & set(sys.modules)\n"
    code += "assert list(inspect.signature(jaxppo.train).parameters) == ['preset', 'values']"
    done = run("-c", code)
    assert done.returncode == 0, done.stderr


def test_a_run_and_what_follows_from_python(tmp_path):
    folder = jaxppo.train(run_dir=str(tmp_path / "run"), **TINY)
    assert (folder / "report.html").is_file()
    tested = jaxppo.backtest(folder, split="validation", out=tmp_path / "backtest", random_draws=1)
    assert (tested / "metrics.json").is_file()
    done = run(str(EXAMPLES / "restore_policy.py"), str(folder))
    assert done.returncode == 0, done.stderr
    action = jaxppo.decide(jaxppo.restore_policy(folder), jaxppo.synthetic_market(27)[0]).action
    assert action in ("hold", "buy", "sell")
    policy, bars = jaxppo.restore_policy(folder), jaxppo.synthetic_market(27)[0]
    needed = 115 + TINY["window"] - 1  # the features base know their first row at bar 115
    assert jaxppo.decide(policy, slice_bars(bars, slice(-needed, None))).time == bars.time[-1]
    with pytest.raises(DataError, match=rf"SYN_A: {needed - 1} bars in .*, but a decision needs at least {needed}: "):
        jaxppo.decide(policy, slice_bars(bars, slice(1 - needed, None)))
    assert f" {action} " in done.stdout


def test_mistakes_from_python_are_errors_with_the_nearest_names(tmp_path):
    with pytest.raises(ConfigError, match="train: unknown field 'n_update'; did you mean 'n_updates'"):
        jaxppo.train(n_update=3)
    with pytest.raises(ConfigError, match="backtest: unknown option 'spilt'; did you mean 'split'"):
        jaxppo.backtest(tmp_path, spilt="test")
    with pytest.raises(ConfigError, match="make_config: learning_rate must be of type float, got 'fast'"):
        jaxppo.make_config(learning_rate="fast")
    with pytest.raises(JaxppoError, match="holds no run"):
        jaxppo.backtest(tmp_path)


@pytest.mark.slow
def test_examples_of_the_commands(tmp_path, monkeypatch):
    """They print what a run prints, so they are run here and not as doctests."""
    monkeypatch.chdir(tmp_path)
    api = jaxppo.api
    for function in (api.train, api.backtest, api.replay, api.walkforward, api.sweep):
        steps = [e.source for e in doctest.DocTestParser().get_examples(inspect.getdoc(function) or "")]
        assert len(steps) > 2
        exec("".join(steps), {})
    assert {p.name for p in (tmp_path / "runs").iterdir()} == {"my-run", "tested", "replay", "folds", "sweep"}


@pytest.mark.parametrize("module", [jaxppo.api, jaxppo.registry, jaxppo.store.trackers])
def test_examples_in_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("check_own_feature", (), "False First: feature feature_0 of SYN_A at bar 0"),
        ("env_alone", (), "(1024, 8)"),
        pytest.param("population", ("1",), "]]", marks=pytest.mark.slow),
        pytest.param("other_trainer", ("2048",), "equity ", marks=pytest.mark.slow),
    ],
)
def test_examples_run(name, arguments, says):
    done = run(str(EXAMPLES / f"{name}.py"), *arguments)
    assert done.returncode == 0, done.stderr
    assert says in done.stdout


def test_console_command(capsys):
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jaxppo {jaxppo.__version__}\n"
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    for name in COMMANDS:
        assert (ROOT / "jaxppo" / name / "__main__.py").is_file()
    done = run("-m", "jaxppo", "data", "check", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert "nowhere: no such file or folder" in done.stderr


@pytest.mark.slow
def test_a_checkout_that_is_not_installed_trains(tmp_path):
    code = """
import sys
from importlib import metadata
find = metadata.Distribution.from_name
def absent(name):
    if name == "jaxppo":
        raise metadata.PackageNotFoundError(name)
    return find(name)
metadata.Distribution.from_name = absent
from jaxppo.train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""
    flags = [
        w
        for k, v in TINY.items()
        for w in (f"--{k.replace('_', '-')}", *map(str, [v] if not isinstance(v, tuple) else v))
    ]
    done = run("-c", code, "--run-dir", str(tmp_path / "run"), *flags)
    assert done.returncode == 0, done.stderr
    assert f'"jaxppo": "{jaxppo.__version__}"' in (tmp_path / "run" / "manifest.json").read_text()
