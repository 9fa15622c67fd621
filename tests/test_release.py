"""The wheel and the sdist: what they hold and what not, that they are the same bytes again, and that they install."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from helpers import TINY
from trove_classifiers import classifiers

import jaxppo
from jaxppo.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12")
LICENCES = {"LICENSE", "jaxppo/page/assets/LICENSES.md"}
"""Of the project, and of what is shipped with it: each is in both archives."""
BESIDE = {"CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "pyproject.toml", "PKG-INFO", ".gitignore"}


def build(folder: Path) -> tuple[Path, Path]:
    """(wheel, sdist) of the checkout."""
    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    (sdist,) = SdistBuilder(str(ROOT)).build(directory=str(folder))
    return Path(wheel), Path(sdist)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built) -> dict[str, bytes]:
    with zipfile.ZipFile(built[0]) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def sdist(built) -> dict[str, bytes]:
    with tarfile.open(built[1]) as archive:
        files = [m for m in archive.getmembers() if m.isfile()]
        return {m.name.partition("/")[2]: archive.extractfile(m).read() for m in files}  # type: ignore[union-attr]


def of_the_checkout(folder: str) -> dict[str, bytes]:
    """Contents of the files of a folder by path from the root, without what Python compiles."""
    files = (p for p in (ROOT / folder).rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    return {p.relative_to(ROOT).as_posix(): p.read_bytes() for p in files}


def test_the_wheel_is_the_package_and_its_presets(wheel):
    info = f"jaxppo-{jaxppo.__version__}.dist-info/"
    presets = {f"jaxppo/{name}": content for name, content in of_the_checkout("configs").items()}
    assert {k: v for k, v in wheel.items() if not k.startswith(info)} == of_the_checkout("jaxppo") | presets
    assert "jaxppo/py.typed" in wheel
    assert wheel[info + "entry_points.txt"].decode().endswith("\njaxppo = jaxppo.__main__:main\n")


def test_the_sdist_holds_what_builds_the_wheel_and_no_tests(sdist):
    wanted = of_the_checkout("jaxppo") | of_the_checkout("configs")
    assert {k: v for k, v in sdist.items() if k not in BESIDE} == wanted
    assert set(sdist) >= BESIDE - {".gitignore"}


def test_licences_are_in_both(wheel, sdist):
    for name in LICENCES:
        kept = wheel[f"jaxppo-{jaxppo.__version__}.dist-info/licenses/{name}"]
        assert kept == sdist[name] == (ROOT / name).read_bytes()
    told = (ROOT / "jaxppo/page/assets/LICENSES.md").read_text()
    for script in (ROOT / "jaxppo" / "page" / "assets").glob(
        "*.min.*"
    ):  # others' scripts and styles are the minified ones
        assert script.name in told


def test_metadata_says_what_the_project_is(wheel):
    said = message_from_bytes(wheel[f"jaxppo-{jaxppo.__version__}.dist-info/METADATA"])
    assert said["Version"] == jaxppo.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxppo.__version__)
    assert said["License-Expression"] == "Apache-2.0 AND BSD-3-Clause AND MIT AND 0BSD"
    assert set(said.get_all("License-File")) == LICENCES
    assert {f"Programming Language :: Python :: {v}" for v in PYTHONS} <= set(said.get_all("Classifier"))
    assert set(said.get_all("Classifier")) <= classifiers  # a registry refuses others
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().startswith("# jaxppo")
    needed = [line for line in said.get_all("Requires-Dist") if "extra ==" not in line]
    assert not [line for line in needed if re.match("torch|gymnasium|optuna|onnx|ccxt|wandb|mlflow", line)]


def test_the_changelog_has_the_version():
    found = re.findall(r"^## (?:\[?)(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found[0] == jaxppo.__version__


def test_nothing_tells_of_the_machine_that_built_it(wheel, sdist):
    for name, content in (wheel | sdist).items():
        for path in (ROOT, sys.prefix, Path("~").expanduser() / ".cache"):
            assert str(path).encode() not in content, name


def test_they_are_the_same_bytes_when_built_again(built, tmp_path):
    digests = [[hashlib.sha256(p.read_bytes()).hexdigest() for p in made] for made in (built, build(tmp_path))]
    assert digests[0] == digests[1]


# --- installed ---


def interpreter(version: str) -> str | None:
    """Of this version: on the path, else pyenv's."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if candidate is not None:
            asked = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.stdout.strip() == version:
                return candidate
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", PYTHONS)
def test_it_installs_and_trains_outside_of_a_checkout(built, tmp_path, version):
    """What a user types, with the newest versions of what it needs: `pip install`, train, backtest."""
    python = interpreter(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    hidden = ("PYTHON", "JAX", "XLA", "VIRTUAL_ENV")
    env = {k: v for k, v in os.environ.items() if not k.startswith(hidden)}

    def run(*command: str | Path) -> str:
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    run(python, "-m", "venv", "venv")
    inside = tmp_path / "venv" / "bin"
    for archive in built:  # the sdist last: what runs is what it built
        once = ("--no-deps", "--force-reinstall") if archive.name.endswith(".tar.gz") else ()
        run(inside / "python", "-m", "pip", "install", "--quiet", *once, archive)
        told = run(inside / "python", "-c", "import jaxppo; print(jaxppo.__version__, jaxppo.__file__)").split()
        assert told[0] == jaxppo.__version__
        assert Path(told[1]).is_relative_to(tmp_path / "venv")
        assert run(inside / "jaxppo", "--version") == f"jaxppo {jaxppo.__version__}\n"
    run(inside / "python", "-m", "pip", "check")
    for name in COMMANDS:
        assert f"jaxppo.{name}" in run(inside / "jaxppo", name, "--help") or name in ("data", "runs")
    small = []
    for name, value in TINY.items():
        small += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    run(inside / "jaxppo", "train", "--preset", "quick_test", "--run-dir", "runs/first", *small)
    assert (tmp_path / "runs" / "first" / "report.html").stat().st_size > 10_000
    assert yaml.safe_load((tmp_path / "runs" / "first" / "manifest.json").read_text())["jaxppo"] == jaxppo.__version__
    run(inside / "jaxppo", "backtest", "runs/first", "--out", "tested", "--random-draws", "10")
    assert {"metrics.json", "report.html"} <= {p.name for p in (tmp_path / "tested").iterdir()}
