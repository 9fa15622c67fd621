"""Presets, layers, device tiers and checks of the configuration."""

import ast
import collections
import dataclasses
import inspect
from pathlib import Path

import pytest
import yaml

from jaxppo.config import layers, schema
from jaxppo.config.checks import check_config
from jaxppo.config.layers import (
    PRESETS,
    DeviceInfo,
    describe,
    device_tier,
    flat_fields,
    load_config,
    load_preset,
    replace_fields,
    resolve,
    updates_for_passes,
    with_updates,
)
from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import FIELD_GROUP, GROUPS, Config, from_dict, to_dict
from jaxppo.errors import ConfigError
from jaxppo.ppo.checks import check_program

GIB = 2**30
CPU = DeviceInfo("cpu", "cpu", 2, None)
A100 = DeviceInfo("gpu", "NVIDIA A100-SXM4-40GB", 1, 40 * GIB, (8, 0))


def resolved(preset="quick_test", device=None, **fields):
    return resolve(preset, fields, device).config


@pytest.mark.parametrize(
    ("preset", "n_envs", "n_steps", "n_updates", "env_steps", "validate_every", "validations"),
    [
        ("quick_test", 2_048, 32, 40, 2_621_440, 5, 8),
        ("standard", 16_384, 16, 200, 52_428_800, 20, 10),
        ("production", 131_072, 8, 477, 500_170_752, 40, 12),
        ("extended", 131_072, 8, 1000, 1_048_576_000, 100, 10),
    ],
)
def test_preset_table(preset, n_envs, n_steps, n_updates, env_steps, validate_every, validations):
    config = resolved(preset)
    budget = config.budget
    assert (budget.n_envs, budget.n_steps, budget.n_updates) == (n_envs, n_steps, n_updates)
    assert config.batch_steps * budget.n_updates == env_steps
    assert budget.validate_every == validate_every
    assert len(config.segments) == validations
    assert sum(config.segments) == n_updates
    assert config.preset == preset


def test_the_last_validation_is_at_the_end_even_where_the_interval_does_not_divide():
    # 477 = 11 * 40 + 37.
    assert resolved("production").segments == (40,) * 11 + (37,)


def test_derived_sizes_by_hand():
    # 131,072 / 32 lanes; 131,072 * 8 bars; 4 epochs * 16 minibatches.
    config = resolved("production", lanes=32, epochs=4)
    assert (config.n_paths, config.batch_steps, config.gradient_steps) == (4096, 1_048_576, 64)


@pytest.mark.parametrize(
    ("device", "n_envs", "n_steps", "dtype"),
    [
        (CPU, 2_048, 32, "float32"),
        (DeviceInfo("gpu", "of which a neighbour has most", 1, GIB - 1), 32_768, 8, "bfloat16"),
        (DeviceInfo("gpu", "unknown", 1, None), 32_768, 8, "bfloat16"),
        (DeviceInfo("gpu", "Tesla T4", 1, 12 * GIB, (7, 5)), 131_072, 8, "float32"),
        (DeviceInfo("gpu", "NVIDIA A10G", 1, 22 * GIB, (8, 6)), 131_072, 8, "bfloat16"),
        (A100, 131_072, 8, "bfloat16"),
        (DeviceInfo("tpu", "TPU v4", 1, 30 * GIB), 131_072, 8, "bfloat16"),
    ],
)
def test_auto_layers_productions_budget_on_the_device(device, n_envs, n_steps, dtype):
    result = resolve("auto", {}, device)
    budget = result.config.budget
    assert (budget.n_envs, budget.n_steps, result.config.agent.compute_dtype) == (n_envs, n_steps, dtype)
    assert budget.validate_every == 40
    # 500M steps, and less than one update more.
    assert 0 <= result.config.batch_steps * budget.n_updates - 500_000_000 < result.config.batch_steps
    assert result.sources["n_updates"] == "derived from env_steps"
    assert result.sources["env_steps"] == "preset auto"
    chosen = {"n_envs", "n_steps", "minibatches", "compute_dtype"} | ({"learning_rate"} if device is not CPU else set())
    assert {name: result.sources[name] for name in chosen} == {
        name: f"chosen: {reason}" for name, reason in device_tier(device).reasons.items()
    }


def test_auto_on_an_a100_is_production():
    assert resolved("auto", A100).segments == resolved("production").segments


@pytest.mark.parametrize("share", [0.1, 0.75, 1.0])
def test_a_card_has_the_same_sizes_whatever_share_of_it_is_reported(share):
    assert device_tier(DeviceInfo("gpu", "", 1, int(share * 16 * GIB))) == device_tier(A100)


def test_auto_says_what_it_chose_and_why_in_the_figures_that_were_measured():
    def said(device: DeviceInfo) -> dict[str, tuple[str, str]]:
        lines = [line.split(maxsplit=3) for line in describe(resolve("auto", {}, device))]
        return {line[0]: (line[2], line[3]) for line in lines}

    card = said(A100)
    assert card["compute_dtype"] == ("bfloat16", "chosen: 14.6 s against 17.0 s in float32 for 500M steps on an H100")
    assert card["minibatches"][0] == "4"
    assert card["minibatches"][1].startswith("chosen: 8.9 s against 14.6 s with 16 for 500M steps on an H100; Sharpe")
    assert card["learning_rate"][0] == "0.0006"  # twice that of production
    assert card["n_envs"] == ("131072", "chosen: the size that was measured, which needs 298 MiB with 16 minibatches")
    old = said(DeviceInfo("gpu", "Tesla V100", 1, 16 * GIB, (7, 0)))
    assert old["compute_dtype"][1].endswith("compute capability 7.0, and bfloat16 is fast from 8.0 on")
    assert said(DeviceInfo("gpu", "", 1, 512 * 2**20))["n_envs"][1] == "chosen: its memory is only 512 MiB"
    # Also where it is what the schema has for every run.
    assert said(CPU)["compute_dtype"][1].startswith("chosen: 310,000 steps/s against 225,000 in bfloat16 on 2 cores")
    assert said(CPU)["n_envs"][1].startswith("chosen: 263,076 steps/s on 2 cores of an AMD EPYC; 16,384 make 307,924")


def test_auto_without_a_device():
    with pytest.raises(ConfigError, match="auto needs a device"):
        resolve("auto")


def test_presets_and_device_tiers_never_set_the_same_field():
    tiers = [device_tier(A100), device_tier(CPU)]
    sizes = set().union(*(t.sizes for t in tiers))
    assert sizes.isdisjoint(load_preset("auto"))


@pytest.mark.parametrize("reward", list(REWARD_PRESETS))
def test_reward_preset_sets_its_discount_and_entropy(reward):
    expected = {"v245": (0.995, 0.005), "v33": (0.991, 0.015), "differential_sharpe": (0.95, 0.005)}.get(
        reward, (Config().ppo.gamma, Config().ppo.entropy_end)
    )
    config = resolved(reward=reward)
    assert (config.ppo.gamma, config.ppo.entropy_end) == expected
    assert config.env.fee == ({"crypto": 0.005} if reward == "v245" else {})


def test_layers_in_order_and_where_each_value_came_from():
    result = resolve("auto", {"reward": "v33", "entropy_end": 0.02, "n_envs": 4096, "fee": {"fx": 0.0002}}, A100)
    flat = flat_fields(result.config)
    expected = {
        "preset": ("auto", "command line"),
        "validate_every": (40, "preset auto"),
        "gamma": (0.991, "reward preset v33"),
        "minibatches": (4, f"chosen: {device_tier(A100).reasons['minibatches']}"),
        "entropy_end": (0.02, "command line"),  # over the reward preset
        "n_envs": (4096, "command line"),  # over what was chosen for the device
        "fee": ({"fx": 0.0002}, "command line"),
        "n_updates": (15_259, "derived from env_steps"),  # 500M / (4,096 * 8) = 15,258.8
    }
    for name, (value, source) in expected.items():
        assert flat[name] == value, name
        assert result.sources[name] == source, name
    assert "lanes" not in result.sources  # nobody touched it


def test_every_source_names_a_value_that_differs_from_the_default_or_was_chosen():
    default = flat_fields(Config())
    for preset in PRESETS:
        result = resolve(preset, {"gamma": 0.9}, A100)
        flat = flat_fields(result.config)
        chosen = {k for k, source in result.sources.items() if source.startswith("chosen")}  # and why, whatever it is
        assert set(result.sources) == chosen | {k for k, v in flat.items() if v != default[k]}, preset


def test_mappings_are_merged_not_replaced():
    config = resolved(reward="v245", fee={"equity": 0.002})
    assert config.env.fee == {"crypto": 0.005, "equity": 0.002}


def test_a_preset_that_names_a_discount_has_decided_it(monkeypatch):
    monkeypatch.setattr(layers, "load_preset", lambda name: {"gamma": 0.9, "reward": "v33"})
    result = resolve("quick_test")
    assert (result.config.ppo.gamma, result.sources["gamma"]) == (0.9, "preset quick_test")
    assert (result.config.ppo.entropy_end, result.sources["entropy_end"]) == (0.015, "reward preset v33")


def test_an_action_table_brings_its_lambda_where_nothing_has_decided_it():
    result = resolve("quick_test", {"actions": "hold_buy_sell"})
    assert (result.config.ppo.gae_lambda, result.sources["gae_lambda"]) == (0.5, "actions hold_buy_sell")
    assert resolve("quick_test", {"reward": "v33"}).config.ppo.gae_lambda == 0.5  # whose actions these are
    assert resolve("quick_test", {"reward": "v33", "actions": "targets"}).config.ppo.gae_lambda == 0.8
    assert resolved(actions="hold_buy_sell", gae_lambda=0.9).ppo.gae_lambda == 0.9
    sized = resolved(actions="sized").ppo
    assert (sized.gae_lambda, sized.entropy_anneal) == (0.5, 0.4)
    # The preset trend has chosen its own.
    assert resolve("trend", {"actions": "hold_buy_sell"}).config.ppo.gae_lambda == 0.8


def test_the_command_line_beats_the_budget_of_the_preset():
    """Preset auto sets env_steps; a number of updates that the user gave is not silently dropped for it."""
    result = resolve("auto", {"n_updates": 5}, A100)
    assert result.config.budget.n_updates == 5
    assert result.sources["n_updates"] == "command line"


def test_env_steps_set_the_number_of_updates_rounded_up():
    # 2,048 * 32 = 65,536 steps an update: 1,000,000 / 65,536 = 15.26.
    result = resolve("quick_test", {"env_steps": 1_000_000, "n_envs": 2048, "n_steps": 32})
    assert result.config.budget.n_updates == 16
    assert result.sources["n_updates"] == "derived from env_steps"
    assert resolved(env_steps=65_536 * 3).budget.n_updates == 3


@pytest.mark.parametrize(
    ("n_updates", "n_validations", "every"), [(40, 10, 4), (200, 10, 20), (477, 10, 48), (1000, 10, 100), (19, 10, 2)]
)
def test_n_validations_set_the_interval(n_updates, n_validations, every):
    result = resolve("quick_test", {"n_updates": n_updates, "n_validations": n_validations})
    assert result.config.budget.validate_every == every
    assert len(result.config.segments) == n_validations
    assert result.sources["validate_every"] == "derived from n_validations"


def test_passes_over_the_bars_set_the_number_of_updates():
    # 2,048 / 16 paths of 32 bars are 4,096 bars an update: 3 times 10,000 bars take 7.3 updates, so 8.
    config = updates_for_passes(resolved(passes=3.0, lanes=16, n_envs=2_048, n_steps=32), 10_000)
    assert config.budget.n_updates == 8
    assert config.passes_over(10_000, 8) == pytest.approx(3.2768)
    assert updates_for_passes(config, 10_000) == config
    assert updates_for_passes(resolved(passes=0.001), 10_000).segments == (1,)
    without = resolved(n_updates=7)
    assert updates_for_passes(without, 10_000) is without
    # Validations are fitted to the updates that come of it, not to those of the preset.
    many = {"passes": 300.0, "lanes": 16}
    assert updates_for_passes(resolved(**many, validate_every=100), 10_000).segments == (100,) * 7 + (33,)
    assert len(updates_for_passes(resolved(**many, n_validations=60), 10_000).segments) == 60
    with pytest.raises(ConfigError, match="n_validations 60 do not fit into n_updates 8"):
        updates_for_passes(resolved(passes=3.0, lanes=16, n_validations=60), 10_000)


def test_updates_that_follow_from_passes_say_so():
    found = with_updates(resolve("quick_test", {"passes": 3.0}), 10_000)
    assert found.config == updates_for_passes(resolved(passes=3.0), 10_000)
    assert (found.sources["passes"], found.sources["n_updates"]) == ("command line", "derived from passes")
    without = resolve("quick_test", {})
    assert with_updates(without, 10_000) == without


def test_one_budget_is_given_and_the_last_layer_decides_which(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("budget: {passes: 5}\n")
    assert resolve("auto", {}, CPU, path).config.budget.env_steps == 0
    assert resolve(None, {"n_updates": 3}, None, path).config.budget.passes == 0
    assert resolve(None, {"env_steps": 10**6}, None, path).config.budget.passes == 0
    assert resolve(None, {}, None, path).config.budget.passes == 5
    with pytest.raises(ConfigError, match="passes 5 and env_steps 1,000 are two budgets: give one"):
        resolved(passes=5.0, env_steps=1000)


@pytest.mark.parametrize(("n_updates", "n_validations"), [(40, 30), (40, 40), (40, 21), (7, 5), (477, 11), (5, 1)])
def test_the_number_of_validations_is_kept(n_updates, n_validations):
    config = resolved(n_updates=n_updates, n_validations=n_validations)
    segments = config.segments
    assert (len(segments), sum(segments)) == (n_validations, n_updates)
    # Spread evenly, and never longer than the interval: the program has room for so many rows of a segment.
    assert max(segments) - min(segments) <= 1
    assert min(segments) >= 1
    assert max(segments) == config.budget.validate_every


def test_thirty_validations_of_forty_updates_by_hand():
    # The ends are at floor(i * 4 / 3) updates: 1, 2, 4, 5, 6, 8, ... so every third segment has two updates.
    assert resolved(n_updates=40, n_validations=30).segments == (1, 1, 2) * 10


def test_an_interval_that_is_given_beats_a_number_of_a_file(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("budget: {n_updates: 40, n_validations: 30}\n")
    assert resolve("quick_test", file=path).config.segments == (1, 1, 2) * 10
    assert resolve("quick_test", {"validate_every": 20}, file=path).config.segments == (20, 20)


def test_more_validations_than_updates_are_refused():
    assert resolved(n_updates=3, n_validations=3).segments == (1, 1, 1)
    with pytest.raises(ConfigError, match=r"n_validations 10 do not fit into n_updates 3, .*: give at most 3"):
        resolved(n_updates=3, n_validations=10)


def test_an_interval_beyond_the_run_is_the_run():
    result = resolve("quick_test", {"n_updates": 3})
    assert result.config.segments == (3,)
    assert result.sources["validate_every"] == "derived from n_updates"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: resolve("standrd"), ["preset", "'standrd'", "'standard'"]),
        (lambda: resolve("quick_test", {"learning_rat": 1e-3}), ["'learning_rat'", "'learning_rate'"]),
        (lambda: resolve("quick_test", {"reward": "v246"}), ["reward", "'v246'", "'v245'"]),
        (lambda: from_dict({"bugdet": {}}, "run.yaml"), ["run.yaml", "'bugdet'", "'budget'"]),
        (lambda: from_dict({"ppo": {"gama": 0.9}}, "run.yaml"), ["run.yaml", "ppo.gama", "'gamma'"]),
        (lambda: check_program(from_dict({"agent": {"encoder": "tnc"}})), ["encoder", "'tnc'", "'tcn'"]),
        (
            lambda: check_program(from_dict({"env": {"actions": "hold_buy"}})),
            ["actions", "'hold_buy'", "'hold_buy_sell'"],
        ),
    ],
    ids=["preset", "field", "reward", "group", "field of a group", "encoder", "actions"],
)
def test_unknown_names_give_the_nearest(call, words):
    with pytest.raises(ConfigError) as error:
        call()
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"budget": {"n_envs": "many"}}, ["budget.n_envs", "int", "'many'"]),
        ({"budget": {"n_envs": 1.5}}, ["budget.n_envs", "int", "1.5"]),
        ({"budget": {"n_envs": True}}, ["budget.n_envs", "int", "True"]),
        ({"ppo": {"gamma": "high"}}, ["ppo.gamma", "float", "'high'"]),
        ({"ppo": {"gamma": [0.9]}}, ["ppo.gamma", "float", "[0.9]"]),
        ({"ppo": {"normalize_advantages": 1}}, ["ppo.normalize_advantages", "bool", "1"]),
        ({"data": {"symbols": "AAPL"}}, ["data.symbols", "tuple", "'AAPL'"]),
        ({"env": {"fee": 0.001}}, ["env.fee", "dict", "0.001"]),
        ({"ppo": [1]}, ["'ppo'", "mapping", "list"]),
        ({"kernels": "fused"}, ["'kernels'", "a field of the group agent"]),
        ({"agent": {"dropout": 0.1}}, ["agent.dropout", "a field of the group ppo"]),
        ([1], ["mapping", "list"]),
        (None, ["mapping", "NoneType"]),
        # Inside of lists and mappings, and at the top.
        ({"env": {"targets": ["long"]}}, ["env.targets", "'long'"]),
        ({"env": {"fee": {"equity": "low"}}}, ["env.fee", "'low'"]),
        ({"data": {"symbols": [1]}}, ["data.symbols", "1"]),
        ({"seed": "x"}, ["seed", "'x'"]),
    ],
)
def test_values_of_the_wrong_type_are_named(raw, words):
    with pytest.raises(ConfigError) as error:
        from_dict(raw, "run.yaml")
    for word in ["run.yaml", *words]:
        assert word in str(error.value)


def test_yaml_reads_3e_4_as_text_which_is_a_number_all_the_same():
    assert from_dict(yaml.safe_load("ppo: {learning_rate: 3e-4}")).ppo.learning_rate == 3e-4
    assert from_dict(yaml.safe_load("env: {fee: {equity: 1e-3}}")).env.fee == {"equity": 1e-3}


SIZES = {"n_envs": 2048, "lanes": 32, "n_steps": 32, "minibatches": 4, "episode_steps": 256}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        # 1,000 / 32 = 31.25: 31 * 32 = 992 and 32 * 32 = 1,024; divisors of 1,000 near 32 are 25 and 40.
        ({"n_envs": 1000}, ["n_envs 1,000", "lanes 32", "992 or 1,024", "lanes 25 or 40"]),
        # 2,048 / 32 = 64 paths: 2 and 4 are as near to 3.
        ({"minibatches": 3}, ["minibatches 3", "64 paths", "n_envs 2,048", "lanes 32", "2 or 4"]),
        ({"episode_steps": 100}, ["episode_steps 100", "n_steps 32", "96 or 128"]),
        ({"episode_steps": 8}, ["episode_steps 8", "n_steps 32", "try episode_steps 32"]),
        # 2,000,001 = 3 * 666,667 has no divisor between 3 and 666,667 that is nearer to 32 than 1 and 3.
        ({"n_envs": 2_000_001}, ["n_envs 2,000,001", "2,000,000 or 2,000,032", "lanes 1 or 3"]),
    ],
)
def test_sizes_that_do_not_divide_name_the_numbers_and_what_would_do(fields, words):
    with pytest.raises(ConfigError) as error:
        resolved(**SIZES | fields)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"n_envs": 1024},
        {"n_envs": 1000, "lanes": 25, "minibatches": 4},
        {"minibatches": 2},
        {"episode_steps": 96},
        {"episode_steps": 32},
    ],
)
def test_what_would_do_does(fields):
    config = replace_fields(resolved(**SIZES), fields)
    assert check_config(config) is config


@pytest.mark.parametrize(
    "fields",
    [
        {"n_envs": 0},
        {"lanes": 0},
        {"n_updates": -1},
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"max_grad_norm": float("inf")},
        {"gamma": 1.5},
        {"gamma": float("nan")},
        {"gae_lambda": -0.1},
        {"clip_value": -0.1},
        {"stop_loss": -0.02},
        {"take_profit": 1.5},
        {"ruin_level": 1.0},
        {"slippage": -1e-4},
        {"spread": 0.6},
        {"borrow": -0.01},
        {"purge_bars": -1},
        {"seed": -1},
        {"seed": 2**31},
    ],
)
def test_numbers_out_of_range_are_named(fields):
    (name,) = fields
    with pytest.raises(ConfigError, match=f"^{name}: must be .*, got "):
        resolved(**fields)


EVERYTHING_CHANGED = {
    "seed": 3,
    "data": "bars",
    "symbols": ("A", "B"),
    "asset_classes": {"A": "fx"},
    "features": ("base",),
    "actions": "targets",
    "targets": (-0.5, 0.0, 0.5),
    "fee": {"equity": 1e-5},
    "reward": "v33",
    "reward_weights": {"pnl": 1.0},
    "encoder": "none",
    "compute_dtype": "bfloat16",
    "learning_rate": 1e-7,
    "normalize_advantages": False,
    "n_validations": 4,
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("fields", [{}, EVERYTHING_CHANGED])
def test_a_config_survives_yaml(preset, fields, tmp_path):
    config = resolved(preset, A100, **fields)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(to_dict(config)))
    assert load_config(path) == config


def test_yaml_tags_that_run_code_are_refused_and_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "config.yaml"
    path.write_text(f"seed: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 1: not valid YAML"):
        load_config(path)
    assert not marker.exists()


def test_files_that_cannot_be_read_or_parsed_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        load_config(tmp_path / "nothing.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("seed: 1\nppo: {gamma: [\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 3"):
        load_config(broken)


def test_replace_fields_changes_only_what_it_names():
    config = replace_fields(Config(), {"gamma": 0.5, "seed": 9})
    changed = {k for k, v in flat_fields(config).items() if v != flat_fields(Config())[k]}
    assert changed == {"gamma", "seed"}
    assert Config().ppo.gamma != 0.5


def test_field_names_are_unique_over_all_groups():
    names = [f.name for cls in GROUPS.values() for f in dataclasses.fields(cls)] + ["preset", "seed"]
    assert [n for n, count in collections.Counter(names).items() if count > 1] == []
    assert len(FIELD_GROUP) == len(names) - 2


@pytest.mark.parametrize("name", [c.__name__ for c in GROUPS.values()] + ["Config"])
def test_every_field_has_a_help_text(name):
    module = ast.parse(Path(inspect.getfile(schema)).read_text())
    body = next(n for n in module.body if isinstance(n, ast.ClassDef) and n.name == name).body
    fields = [(n, after) for n, after in zip(body, body[1:] + [None], strict=True) if isinstance(n, ast.AnnAssign)]
    assert fields
    for node, after in fields:
        if node.target.id in GROUPS:
            continue
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        assert isinstance(text, str), node.target.id
        assert text.endswith("."), node.target.id


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().ppo.gamma = 0.5


# A file of one's own


def own(tmp_path, text: str) -> Path:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def test_an_own_file_is_layered_between_preset_and_command_line(tmp_path):
    path = own(tmp_path, "preset: standard\nseed: 5\nppo: {gamma: 0.9, epochs: 2}\nbudget: {n_updates: 7}\n")
    found = resolve(None, {"epochs": 3, "reward": "v33"}, file=path)
    config = found.config
    assert (config.preset, config.seed, config.budget.n_envs) == ("standard", 5, 16_384)
    assert (config.ppo.gamma, config.ppo.epochs, config.budget.n_updates) == (0.9, 3, 7)  # v33 would bring .991
    assert config.ppo.entropy_end == 0.015  # which the file leaves to v33
    assert found.sources["gamma"] == found.sources["seed"] == f"config {path}"
    assert found.sources["epochs"] == "command line"
    assert resolve("quick_test", file=path).config.preset == "quick_test"  # --preset wins over the file's
    assert resolve(None).config.preset == "quick_test"


def test_the_configuration_that_a_run_keeps_can_be_given_again(tmp_path):
    config = resolve("standard", {"gamma": 0.97, "symbols": ("A",), "data": "bars"}).config
    again = resolve(None, file=own(tmp_path, yaml.safe_dump(to_dict(config)))).config
    assert again == config


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ppo: {gama: 0.9}\n", "unknown field ppo.gama; did you mean 'gamma'"),
        ("pop: {}\n", "unknown group 'pop'; did you mean 'ppo'?"),
        ("preset: standrd\n", "preset: unknown preset 'standrd'; did you mean 'standard'"),
        ("- 1\n", "expected a mapping of config groups, got list"),
        ("ppo: [\n", "not valid YAML"),
    ],
)
def test_an_own_file_that_does_not_fit_is_one_sentence(tmp_path, text, said):
    with pytest.raises(ConfigError) as error:
        resolve(None, file=own(tmp_path, text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("given", [{"interval": "1h"}, {"symbols": ("A",)}, {"timezone": "UTC"}])
def test_what_describes_the_data_needs_data(given):
    (name,) = given
    with pytest.raises(ConfigError, match=f"{name}: describes --data; without --data the bars are made up"):
        resolve("quick_test", given)
