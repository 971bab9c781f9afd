"""The set-up: one list of pins behind pip, conda and the package; one command for people and CI."""

import importlib.metadata
import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import unlearnkit

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NO_DEPS = re.compile(r"^# pip install --no-deps (\S+)$", re.MULTILINE)


def _requirements() -> list[Requirement]:
    lines = [line for line in LOCK.splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in lines + NO_DEPS.findall(LOCK)]


def _pins() -> dict[str, str]:
    return {
        canonicalize_name(r.name): next(iter(r.specifier)).version
        for r in _requirements()
        if r.specifier
    }


def test_lock_is_exact_versions_from_the_registry():
    requirements = _requirements()
    names = [canonicalize_name(r.name) for r in requirements]
    assert sorted(names) == sorted(set(names))
    for requirement in requirements:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "://" not in LOCK


def test_direct_dependencies_are_pinned_within_their_bounds():
    left_out = {"hub"}  # the set-up installs none of it: only data sets named hf: need it
    extras = (r for name, r in PROJECT["optional-dependencies"].items() if name not in left_out)
    for requirement in map(Requirement, itertools.chain(PROJECT["dependencies"], *extras)):
        assert requirement.specifier.contains(_pins()[canonicalize_name(requirement.name)])


def test_package_asks_for_neither_jupyter_nor_torchattacks():
    runtime = {Requirement(text).name for text in PROJECT["dependencies"]}
    notebooks = {Requirement(t).name for t in PROJECT["optional-dependencies"]["notebooks"]}
    assert not runtime & (notebooks | {"torchattacks"})
    assert {"torch", "torchvision", "timm", "numpy", "scipy", "pandas"} <= runtime


def test_lock_is_closed_under_dependencies():
    """What a pinned package asks for, here, is pinned too, at a version it accepts."""
    pins = _pins()
    for name, version in pins.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name == "torchattacks" or found.version != version:
            continue
        for text in found.requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                pin = pins.get(canonicalize_name(needed.name))
                if pin is None and (sys.platform, *sys.version_info[:2]) != ("linux", 3, 11):
                    continue  # appnope on macOS, aiohttp on Python 3.12: pip adds them
                assert pin, f"{name} needs {text}, which is not in requirements.txt"
                assert needed.specifier.contains(pin, prereleases=True), (name, text, pin)


def test_torchattacks_has_one_pin_and_a_step_of_its_own():
    assert [Requirement(text).name for text in NO_DEPS.findall(LOCK)] == ["torchattacks"]
    for other in ("run_all.sh", "environment.yml"):
        assert "torchattacks==" not in (ROOT / other).read_text()
    told = re.findall(r"torchattacks==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert set(told) == {_pins()["torchattacks"]}


def test_conda_ci_and_workflow_use_the_same_lock_and_command():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == PROJECT["name"] == "unlearnkit"
    assert environment["dependencies"] == ["python=3.11", "pip", {"pip": ["-r requirements.txt"]}]
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec ./run_all.sh --check"
    workflow = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
    steps = workflow["jobs"]["check"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]
    pages = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())["jobs"]["publish"]
    assert [step["run"] for step in pages["steps"] if "run" in step] == ["./run_all.sh --site"]
    steps += pages["steps"]
    versions = [s["with"]["python-version"] for s in steps if "python-version" in s.get("with", {})]
    assert set(versions) == {"3.11"} and PROJECT["requires-python"] == ">=3.11"
    assert all(os.access(ROOT / script, os.X_OK) for script in ("run_all.sh", ".ci/run"))


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == unlearnkit.__version__ == citation["version"]
    assert citation["references"][0]["doi"] == "10.1145/3701716.3715598"


def test_the_repository_has_one_address():
    """The constant is pyproject's; docs/maintaining.md says how to change all at once."""
    address = PROJECT["urls"]["Repository"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == address
    quickstart = (ROOT / "notebooks/00_quickstart.ipynb").read_text()
    assert f"git clone {address} &&" in (ROOT / "README.md").read_text()
    assert f"pip install -q git+{address}\\n" in quickstart
    assert address in (ROOT / "docs/maintaining.md").read_text()
    assert f"torchattacks=={_pins()['torchattacks']}" in quickstart


def test_help_names_every_profile():
    shown = subprocess.run(
        ["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--check" in shown
    profiles = list((ROOT / "unlearnkit/study/profiles").glob("*.toml"))
    assert profiles and all(f"{profile.stem} (" in shown for profile in profiles)


MAIN = "import sys\nprint('unlearnkit', *sys.argv[1:])\n"
BUILD = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[tool.setuptools]
packages = ["{name}"]
"""


def _package(folder: Path, name: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / "pyproject.toml").write_text(BUILD.format(name=name))
    (folder / name / "__init__.py").touch()
    (folder / name / "__main__.py").write_text(MAIN)
    return folder


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with a space in its name: run_all.sh, this package in small, and one pin."""
    folder = _package(tmp_path_factory.mktemp("setup") / "a check-out", "unlearnkit")
    shutil.copy(ROOT / "run_all.sh", folder)
    # A source tree as its only pin; both are built by the setuptools of this environment.
    pins = f"# pip install --no-deps {_package(folder.parent / 'extra', 'extra')}\n"
    (folder / "requirements.txt").write_text(pins)
    return folder


def _run(checkout: Path, *arguments: str, **variables: object) -> subprocess.CompletedProcess:
    kept = {k: v for k, v in os.environ.items() if k not in ("CONDA_PREFIX", "PYTHON")}
    given = {"PYTHON": sys.executable, "PYTHONPATH": Path(yaml.__file__).parents[1]}
    given |= {"PIP_NO_INDEX": 1, "PIP_NO_BUILD_ISOLATION": 0, **variables}
    return subprocess.run(
        ["bash", str(checkout / "run_all.sh"), *arguments],
        env=kept | {k: str(v) for k, v in given.items()},
        capture_output=True,
        text=True,
    )


def test_set_up_once_again_when_a_pin_changes_and_after_a_failure(checkout):
    first = _run(checkout, "01", "--profile", "smoke")
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("setting up .venv")
    assert first.stdout.endswith("unlearnkit run 01 --profile smoke\n")
    python = checkout / ".venv/bin/python"
    found = subprocess.run(
        [python, "-I", "-c", "import extra, unlearnkit; print(unlearnkit.__file__)"],
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert found.stdout == f"{checkout}/unlearnkit/__init__.py\n", found.stderr

    again = _run(checkout)
    assert (again.returncode, again.stdout, again.stderr) == (0, "unlearnkit run\n", "")
    (checkout / "docs").mkdir()
    (checkout / "docs/build.py").write_text("import sys\nprint('built', *sys.argv[1:])\n")
    built = _run(checkout, "--site").stdout
    assert built == f"built site\nSite: {checkout}/site/index.html\n"

    pins = checkout / "requirements.txt"
    sound = pins.read_text()
    pins.write_text(sound + "nosuch==1.0\n")
    broken = _run(checkout, "--setup")
    assert broken.returncode == 1 and "setting up" in broken.stdout
    assert "run_all.sh: could not install requirements.txt" in broken.stderr
    pins.write_text(sound)
    mended = _run(checkout)
    assert mended.returncode == 0 and "setting up" in mended.stdout, mended.stderr
    assert "setting up" not in _run(checkout).stdout


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PYTHON": "/no/such/python"}, "/no/such/python is not Python 3.11 or newer"),
        ({"CONDA_PREFIX": "/no/such/env"}, "CONDA_PREFIX is /no/such/env"),
    ],
)
def test_bad_environment_is_one_line(tmp_path, variables, reason):
    for name in ("run_all.sh", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path)
    done = _run(tmp_path, "--setup", **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"run_all.sh: {reason}")
    assert len(done.stderr.splitlines()) == 1


IMPORT_ALL = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith(("jupyter", "nb", "ipy", "IPython", "papermill")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

def fail(name):
    raise

sys.meta_path.insert(0, Absent())
import unlearnkit
for found in pkgutil.walk_packages(unlearnkit.__path__, "unlearnkit.", onerror=fail):
    importlib.import_module(found.name)
"""


def test_every_module_imports_without_jupyter():
    command = [sys.executable, "-c", IMPORT_ALL]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stdout
