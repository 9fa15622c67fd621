"""Costs by symbol: what a file says is what each symbol's account pays, and what is refused or told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from helpers import tiny_config

from jaxppo.backtest.facts import costs_warnings, terms
from jaxppo.backtest.remarks import _terms
from jaxppo.backtest.run import BacktestOptions, backtest_costs
from jaxppo.config.checks import check_config
from jaxppo.config.layers import replace_fields
from jaxppo.config.schema import EnvConfig
from jaxppo.env.account import open_account, settle, units_for_exposure
from jaxppo.env.trading import MarketStep
from jaxppo.errors import CheckpointError, ConfigError, DataError, JaxppoError
from jaxppo.market.bars import Bars
from jaxppo.market.costs import CostTable, SymbolCosts, market_costs, read_costs, resolve_costs, typical_env
from jaxppo.market.dataset import Market, build_market
from jaxppo.market.synthetic import synthetic_market
from jaxppo.replay.__main__ import main as replay
from jaxppo.store.directory import _data_facts, costs_hash
from jaxppo.train.resume import require_same_costs

DEFAULTS = {s: SymbolCosts(0.001, 0.0005, 0.03) for s in ("AAA", "BBB", "CCC")}


def written(folder: Path, text: str, name: str = "costs.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def resolved(folder: Path, text: str, slippage: float = 0.0):
    return resolve_costs(read_costs(written(folder, text)), DEFAULTS, slippage)


# What a symbol pays


def test_what_the_file_gives_replaces_and_what_it_leaves_out_stays(tmp_path: Path) -> None:
    found = resolved(tmp_path, "symbol,half_spread,fee,borrow\nAAA,2e-4,3e-5,.01\nBBB,1e-4,,\n", slippage=1e-4)
    assert found.by_symbol == {
        "AAA": SymbolCosts(3e-5, 2e-4, 0.01),
        "BBB": SymbolCosts(0.001, 1e-4, 0.03),
        "CCC": DEFAULTS["CCC"],
    }
    # Sides: 3e-5 + 2e-4 + 1e-4 = 3.3e-4; 1e-3 + 1e-4 + 1e-4 = 1.2e-3; 1e-3 + 5e-4 + 1e-4 = 1.6e-3.
    assert found.sides() == pytest.approx((1.2e-3, 3.3e-4, 1.6e-3), rel=1e-12)
    assert found.warnings == (
        "costs.csv has no costs of CCC: the defaults hold",
        "costs.csv: fee is blank for BBB: the default holds",
        "costs.csv: borrow is blank for BBB: the default holds",
    )
    assert "2 of 3 symbols; a side costs 12 bp in the median, from 3.3 to 16 bp" in found.lines[0]


def test_extra_columns_and_symbols_without_bars_are_told_once(tmp_path: Path) -> None:
    text = "Symbol,group,Half Spread\nAAA,FX,0\nBBB,FX,1e-4\nCCC,Metal,1e-4\nZZZ,Metal,1e-4\n"
    found = resolved(tmp_path, text)
    assert found.by_symbol["AAA"] == SymbolCosts(0.001, 0.0, 0.03)
    assert found.lines[0].endswith("; ignored: column 'group', 1 symbol without bars")
    assert found.lines[1] == "costs.csv has no fee: 10 bp a side are paid besides; --fee 0 for none"
    assert found.warnings == ()


def test_a_symbol_is_found_in_the_spelling_of_its_bars(tmp_path: Path) -> None:
    table = read_costs(written(tmp_path, "ticker,fee\neurusd.pro,.0001\naapl,.0002\nBRK_B,.0003\n"))
    symbols = dict.fromkeys(("EURUSD", "AAPL", "BRK_B", "brk_b"), DEFAULTS["AAA"])
    fees = {s: c.fee for s, c in resolve_costs(table, symbols, 0.0).by_symbol.items()}
    # BRK_B is there in two cases, so only the one as written is meant.
    assert fees == {"EURUSD": 0.0001, "AAPL": 0.0002, "BRK_B": 0.0003, "brk_b": 0.001}


def test_the_hash_is_of_what_the_file_says(tmp_path: Path) -> None:
    one = read_costs(written(tmp_path, "symbol,fee,half_spread\nAAA,1e-4,\nBBB,2e-4,1e-3\n"))
    frame = pl.DataFrame(
        {"half_spread": [1e-3, None], "note": ["x", "y"], "symbol": ["BBB", "AAA"], "fee": [2e-4, 1e-4]}
    )
    frame.write_parquet(tmp_path / "costs.parquet")
    assert read_costs(tmp_path / "costs.parquet").hash == one.hash
    assert read_costs(written(tmp_path, "symbol,fee,half_spread\nAAA,1e-4,\nBBB,2e-4,2e-3\n")).hash != one.hash


# What is refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "symbol,half_spread\nAAA,.001\nBBB,0.6\n",
            "costs.csv, symbol BBB, line 3: half_spread '0.6' must be a number",
        ),
        ("symbol,fee\nAAA,.5\n", "symbol AAA, line 2: fee '.5' must be a number of at least 0 and below 0.5"),
        ("symbol,fee\nAAA,-1e-4\nBBB,nan\n", "symbol AAA, line 2: fee '-1e-4' must be a number .* (and in 1 more row)"),
        ("symbol,fee\nAAA,inf\n", "line 2: fee 'inf' must be a number"),
        ("symbol,fee\nAAA,2 bp\n", "line 2: fee '2 bp' must be a number"),
        ("symbol,fee,borrow\nAAA,0,-1\n", "line 2: borrow '-1' must be a number of at least 0, or blank"),
        ("symbol,fee\nAAA,0\n\nAAA,0\n", "costs.csv, symbol AAA, line 4: stands on line 2 already"),
        ("symbol,fee\nAAA,0\naaa,0\n", "costs.csv, symbol AAA, line 3: stands on line 2 already"),
        ("symbol,fee\n,0\n", "costs.csv, line 2: symbol is empty"),
        ("symbol,fee,Fee\nAAA,0,0\n", "columns 'fee' and 'Fee' are both the fee"),
        ("symbol,spread\nAAA,0\n", "no column for half_spread or fee among 'symbol', 'spread'; costs need symbol"),
        ("AAA,0.001\n", "no column for symbol among 'AAA', '0.001'"),
        ("symbol,fee\n", "costs.csv: holds no costs"),
        ("symbol,fee\nAAA,0,1\n", "costs.csv, line 2: 3 cells where the header has 2"),
        ("symbol,fee\nZZZ,0\n", "holds costs of ZZZ and of none of the bars' symbols, AAA, BBB, CCC"),
        ("", "costs.csv: the file is empty"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_where_it_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        resolved(tmp_path, text)


def test_a_path_that_is_no_table_is_refused(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "none.csv", "no such file; give a CSV or Parquet file of costs"),
        (tmp_path, "not a table of costs"),
        (written(tmp_path, "x", "costs.json"), "not a table of costs"),
    ):
        with pytest.raises(DataError, match=message):
            read_costs(path)
    with pytest.raises(ConfigError, match=r"costs: addresses .* are not read"):
        check_config(tiny_config(costs="https://example.com/costs.csv"))


def test_costs_that_take_all_equity_name_their_symbol(tmp_path: Path) -> None:
    bars = synthetic_market(0, 2, 50)
    file = written(tmp_path, f"symbol,fee\n{bars[1].symbol},.3\n")
    # At an exposure of 4, entering at .3 a side would cost 1.2 of the equity.
    with pytest.raises(ConfigError, match=f"max_exposure 4 at costs of 0.3 a side of {bars[1].symbol} .* below 3.33"):
        market_costs(bars, EnvConfig(costs=str(file), max_exposure=4.0))


# In every account


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Bars], Path, Market]:
    """Two symbols, of which the first has costs of its own."""
    bars = synthetic_market(0, 2, 900)
    file = written(tmp_path_factory.mktemp("costs"), f"symbol,half_spread,fee,borrow\n{bars[0].symbol},.002,.003,.1\n")
    config = tiny_config(costs=str(file), fee={"equity": 0.01}, spread=0.008, slippage=0.0005, borrow=0.05)
    return bars, file, build_market(bars, config, 8)


def test_every_tape_has_the_costs_of_its_symbols(priced: tuple[list[Bars], Path, Market]) -> None:
    _, _, market = priced
    for name in ("train", "validation", "test"):
        tape = market.splits[name].tape
        # half spread + slippage: .002 + .0005, and of the other .008 / 2 + .0005
        np.testing.assert_allclose(tape.costs.impact, [0.0025, 0.0045], rtol=1e-6)
        np.testing.assert_allclose(tape.costs.fee, [0.003, 0.01], rtol=1e-6)
        np.testing.assert_allclose(tape.costs.borrow * tape.bars_per_year, [0.1, 0.05], rtol=1e-6)


def test_an_account_pays_its_own_fee_and_half_spread(priced: tuple[list[Bars], Path, Market]) -> None:
    # Buying with all of 1 at a price of 100. Of the first a unit costs 100 * 1.0025 * 1.003 = 100.55075, of the other
    # 100 * 1.0045 * 1.01 = 101.4545; what is bought is worth 100 / 100.55075 = .9945227 and 100 / 101.4545 = .9856635.
    costs = priced[2].splits["train"].tape.costs
    price = jnp.full(2, 100.0)
    account = open_account(jnp.ones(2))
    units = units_for_exposure(account, jnp.ones(2), price, costs)
    bar = MarketStep(price, price, price, price, *(jnp.zeros(2) for _ in range(len(MarketStep._fields) - 4)))
    after, record = settle(account, units, bar, costs, jnp.zeros(2), EnvConfig())
    np.testing.assert_allclose(after.equity, [0.9945227, 0.9856635], rtol=1e-6)
    # Fees: .003 * 100.25 / 100.55075 and .01 * 100.45 / 101.4545.
    np.testing.assert_allclose(record.fees, [0.00299103, 0.00990099], rtol=1e-5)


def test_without_a_file_nothing_is_told() -> None:
    market = build_market(synthetic_market(0, 2, 900), tiny_config(), 8)
    assert market.costs.lines == market.costs.warnings == ()
    assert "costs" not in _data_facts(market, "bars", ())
    assert "costs" not in terms(market, tiny_config())


def test_manifest_terms_and_page_tell_what_was_paid(priced: tuple[list[Bars], Path, Market]) -> None:
    bars, file, market = priced
    one, other = (b.symbol for b in bars)
    told = json.loads(json.dumps(_data_facts(market, "bars", ())))["costs"]
    assert told["hash"] == read_costs(file).hash == costs_hash({"data": {"costs": told}})
    assert told["symbols"][one] == {"fee": 0.003, "half_spread": 0.002, "borrow": 0.1}
    assert told["symbols"][other] == {"fee": 0.01, "half_spread": 0.004, "borrow": 0.05}
    found = terms(market, tiny_config(fee={"equity": 0.01}, spread=0.008, slippage=0.0005, borrow=0.05))
    # Medians of two are means: fee (.003 + .01) / 2, half spread (.002 + .004) / 2, sides .0055 and .0145.
    assert found["fee"] == {"equity": pytest.approx(0.0065)}
    assert found["spread"] == pytest.approx(0.006)
    assert found["costs"]["side"] == pytest.approx({"median": 0.01, "low": 0.0055, "high": 0.0145})
    rows = {name: said.replace("\N{NO-BREAK SPACE}", " ") for name, said in _terms(found)}
    assert rows["Fee a side, median"] == "equity 0.650 %"
    assert rows["A side in all"].startswith("median 1.000 %, from 0.550 % to 1.450 %; 2 symbols; costs.csv, hash ")


def test_checks_on_made_up_symbols_pay_the_medians(priced: tuple[list[Bars], Path, Market]) -> None:
    bars, file, market = priced
    env = typical_env(market.costs, bars, EnvConfig(costs=str(file), fee={"fx": 0.002}))
    assert (env.costs, env.spread, env.borrow) == (None, pytest.approx(0.006), pytest.approx(0.075))
    assert env.fee == {"fx": 0.002, "equity": pytest.approx(0.0065)}


def test_a_resumed_run_and_a_backtest_say_that_the_costs_changed(
    priced: tuple[list[Bars], Path, Market], tmp_path: Path
) -> None:
    market = priced[2]
    manifest = {"data": _data_facts(market, "bars", ())}
    require_same_costs(tmp_path, manifest, market)
    now = SimpleNamespace(costs=dataclasses.replace(market.costs, hash="f" * 64))
    with pytest.raises(
        CheckpointError, match=r"the costs by symbol changed since the run began \(hash .*, now hash fff"
    ):
        require_same_costs(tmp_path, manifest, now)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="now no file"):
        require_same_costs(tmp_path, manifest, SimpleNamespace(costs=SimpleNamespace(hash=None)))  # type: ignore[arg-type]
    assert costs_warnings(market, manifest, own=True) == []
    assert "changed since it was trained" in costs_warnings(now, manifest, own=True)[0]  # type: ignore[arg-type]
    assert costs_warnings(now, manifest, own=False) == []  # type: ignore[arg-type]


def test_a_backtest_has_the_runs_costs_unless_given_others(
    priced: tuple[list[Bars], Path, Market], tmp_path: Path
) -> None:
    bars, file, _ = priced
    config = tiny_config(costs=str(file))
    options = BacktestOptions(run_dir=tmp_path)
    assert backtest_costs(options, config, bars) == (config, [])
    given = dataclasses.replace(options, costs="other.csv")
    assert backtest_costs(given, config, bars) == (replace_fields(config, {"costs": "other.csv"}), [])
    # Bars of one's own, of which the run's file has none.
    others = [dataclasses.replace(b, symbol=f"X{i}") for i, b in enumerate(bars)]
    without, said = backtest_costs(dataclasses.replace(options, data="elsewhere"), config, others)
    assert without.env.costs is None
    assert "hold none of these symbols" in said[0]


def test_a_replay_pays_the_file(tmp_path: Path) -> None:
    # Buy 1 unit at 100 with a half spread of 1 % and a fee of 2 %: 101 * 1.02 = 103.02, so 1,000 is 996.98 at 100.
    days = "\n".join(f"2024-01-0{i},100,100,100,100" for i in (1, 2, 3))
    bars = written(tmp_path, f"timestamp,open,high,low,close\n{days}\n", "AAA_1d.csv")
    orders = written(tmp_path, "bar,order_units\n0,1\n", "orders.csv")
    costs = written(tmp_path, "symbol,fee,half_spread\naaa,.02,.01\n")
    line = [str(bars), str(orders), "--out", str(tmp_path / "out"), "--cash", "1000", "--x64", "--fee", ".5"]
    assert replay([*line, "--costs", str(costs)]) == 0
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert told["final_equity"] == pytest.approx(996.98, rel=1e-9)
    assert (told["settings"]["fee"], told["settings"]["spread"]) == (0.02, 0.02)


def test_rows_are_checked_without_a_file() -> None:
    table = CostTable("costs.csv", ("AAA",), {"fee": np.array([np.nan])}, ("line 2",))
    assert resolve_costs(table, DEFAULTS, 0.0).by_symbol == DEFAULTS
    with pytest.raises(JaxppoError, match="of none of the bars' symbols"):
        resolve_costs(table, {"B": DEFAULTS["BBB"]}, 0.0)
