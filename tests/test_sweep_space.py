"""The space of a sweep: what may be searched, in flags, YAML and Python alike, and one sentence for what may not."""

from __future__ import annotations

import doctest

import pytest
import yaml

from jaxppo.config.layers import resolve
from jaxppo.errors import ConfigError
from jaxppo.sweep import options, setup, shapes, space
from jaxppo.sweep.options import SweepOptions, check_options
from jaxppo.sweep.shapes import check_space, common_purge, shape_key, trial_config
from jaxppo.sweep.space import in_arrays, read_space
from jaxppo.sweep.study import check_sampler, grid_size

FLAGS = (
    "learning_rate log 1e-4 3e-3",
    "gamma uniform .9 .99 .03",
    "n_steps int 16 64 16",
    "encoder tcn none",
    "features base base,trend",
    "normalize_advantages true false",
)
YAML = """
learning_rate: {log: [1e-4, 3e-3]}
gamma: {uniform: [.9, .99, .03]}
n_steps: {int: [16, 64, 16]}
encoder: [tcn, none]
features: [[base], [base, trend]]
normalize_advantages: [true, false]
"""


def read(*flags):
    return read_space([flag.split() for flag in flags], None)


def resolved(values):
    return resolve("quick_test", values).config


@pytest.mark.parametrize("module", [space, options, setup, shapes])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_flags_a_file_and_python_say_the_same(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(YAML)
    flags = read(*FLAGS)
    assert flags == read_space((), file) == read_space(yaml.safe_load(YAML), None)
    assert [d.kind for d in flags.values()] == ["log", "uniform", "int", "categories", "categories", "categories"]
    assert flags["features"].values == (("base",), ("base", "trend"))
    assert flags["features"].choices == ("base", "base,trend")
    assert flags["features"].value("base,trend") == ("base", "trend")
    assert flags["n_steps"].grid == [16, 32, 48, 64]
    assert flags["gamma"].grid == pytest.approx([0.9, 0.93, 0.96, 0.99])
    assert flags["learning_rate"].grid is None
    assert [name for name in flags if in_arrays(name)] == ["learning_rate", "gamma"]
    over = read_space([["encoder", "none", "window_mlp"]], file)
    assert over["encoder"].values == ("none", "window_mlp")
    assert list(over) == list(flags)


@pytest.mark.parametrize(
    ("flag", "says"),
    [
        ("learning_rat log 1 2", "learning_rat: unknown field; did you mean 'learning_rate'"),
        ("learning_rate log 0 1", "a log range must begin above 0, got 0"),
        ("learning_rate uniform a 1", "expected a number, got 'a'"),
        ("learning_rate linear 1 2", "unknown kind 'linear'"),
        ("learning_rate log 1e-3 1e-4", "low end must be below the high end, got 0.001 and 0.0001"),
        ("learning_rate log 1e-4 1e-3 2", "log takes LOW HIGH, got 3 values"),
        ("n_steps uniform 1 4", "takes whole numbers: give 'int' or 'log'"),
        ("n_steps int 1.5 4", "expected a whole number, got '1.5'"),
        ("gamma int 0 1", "takes any number: give 'uniform' or 'log'"),
        ("gamma uniform .9 .99 0", "the step must be above 0 and at most 0.09, got 0"),
        ("encoder log 1 2", "has no numbers to range over"),
        ("n_steps 16 x", "n_steps must be of type int, got 'x'"),
        ("normalize_advantages true maybe", "normalize_advantages must be of type bool, got 'maybe'"),
        ("compute_dtype float32 float16", "unknown choice 'float16'"),
        ("gamma .9", "one value is no choice"),
        ("gamma .9 .90", "0.9 is given twice"),
        ("gamma", "'gamma' is not a field with values"),
        ("interval 1d 1h", "cannot be searched: trials on other bars"),
        ("spread 0 .001", "cannot be searched: validations at other costs"),
        ("reward_weights 1 2", "cannot be searched: it is a mapping"),
        ("seed 1 2", "cannot be searched: every trial has a seed of its own"),
        ("gate_overfit 0 1", "cannot be searched: the gate judges after training"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence(flag, says):
    with pytest.raises(ConfigError, match=says) as error:
        read(flag)
    assert str(error.value).startswith("search")


def test_a_field_twice_and_nothing_at_all():
    with pytest.raises(ConfigError, match="gamma is given twice"):
        read("gamma .9 .95", "gamma .9 .99")
    with pytest.raises(ConfigError, match="nothing to search"):
        read()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gamma: .9", "gamma: expected a list of categories, or one of {uniform|log|int"),
        ("gamma: {log: .9}", "gamma: expected a list of categories"),
        ("- gamma", "expected fields with their values, got list"),
        ("gamma: {normal: [.9, .99]}", "gamma: unknown kind 'normal'"),
        ("encoder: [tcn, 3]", "encoder must be of type str, got 3"),
    ],
)
def test_a_file_that_is_no_space_is_named(tmp_path, text, says):
    file = tmp_path / "space.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as error:
        read_space((), file)
    assert str(error.value).startswith(str(file))


def test_every_category_and_both_ends_must_be_able_to_run():
    check_space(resolved, read("encoder tcn none", "learning_rate log 1e-4 3e-3"))
    with pytest.raises(ConfigError, match="search: encoder nothing: encoder: unknown choice 'nothing'"):
        check_space(resolved, read("encoder tcn nothing"))
    with pytest.raises(ConfigError, match="search: n_steps 24: episode_steps 256 is not a multiple of n_steps 24"):
        check_space(resolved, read("n_steps int 16 24"))


def test_a_trial_is_the_run_with_its_parameters_as_flags():
    found = read("reward v33 log_return", "learning_rate log 1e-4 3e-3")
    config = trial_config(resolved, found, {"reward": "v33", "learning_rate": 1e-3})
    assert config == resolve("quick_test", {"reward": "v33", "learning_rate": 1e-3}).config
    assert config.ppo.gamma == 0.991  # which the reward preset brings


def test_arrays_and_seeds_share_a_shape_and_nothing_else_does():
    base = resolved({})
    assert shape_key(base) == shape_key(resolved({"learning_rate": 1e-2, "gamma": 0.5, "seed": 7}))
    for other in ({"n_steps": 16}, {"encoder": "none"}, {"dropout": 0.1}, {"features": ("base",)}):
        assert shape_key(base) != shape_key(resolved(other))


def test_all_encoders_are_validated_on_the_days_of_the_widest():
    assert common_purge(resolved, read("encoder none tcn", "window 32 128")) == {"purge_bars": 128 + 5}
    assert common_purge(resolved, read("gamma .9 .95")) == {}


def test_a_grid_has_an_end():
    assert grid_size(read("n_steps int 16 64 16", "encoder tcn none")) == 8
    check_sampler("grid", read("gamma .9 .99"))
    with pytest.raises(ConfigError, match="learning_rate: a grid needs categories"):
        check_sampler("grid", read("gamma .9 .99", "learning_rate log 1e-4 1e-3"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trials": 0}, "trials: must be at least 1"),
        ({"eta": 1}, "eta: one in at least 2 goes on"),
        ({"halve_at": (2, 1)}, "halve_at: must be rising"),
        ({"halve_at": (0,)}, "halve_at: must be rising"),
        ({"day_blocks": 7}, "day_blocks: must be an even number"),
        ({"day_blocks": 30}, "day_blocks: 30 make 155,117,520 splits; give at most 20"),
    ],
)
def test_options_that_do_not_fit(change, says):
    with pytest.raises(ConfigError, match=says):
        check_options(SweepOptions(**change))
