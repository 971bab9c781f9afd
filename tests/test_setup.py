"""The set-up: one list of pins behind pip, conda and the package; one command for people and CI."""

import importlib.metadata
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
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/check.yml").read_text())
WANTED = ["jupyterlab", "papermill", "torch", "torchvision", "timm", "torchattacks"]
WANTED += ["matplotlib", "seaborn", "nbval"]
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


def _direct() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    return [Requirement(text) for texts in (PROJECT["dependencies"], *extras) for text in texts]


# ---- The pins --------------------------------------------------------------------------------


def test_lock_is_exact_versions_from_the_registry():
    requirements = _requirements()
    names = [canonicalize_name(r.name) for r in requirements]
    assert sorted(names) == sorted(set(names))
    for requirement in requirements:
        assert re.fullmatch(r"==[0-9][0-9a-z.]*", str(requirement.specifier)), requirement
        assert requirement.url is None
    assert "://" not in LOCK


@pytest.mark.parametrize("name", WANTED)
def test_wanted_package_is_pinned(name):
    assert name in _pins()


@pytest.mark.parametrize("requirement", _direct(), ids=lambda r: r.name)
def test_direct_dependency_is_pinned_within_its_bounds(requirement):
    assert requirement.specifier.contains(_pins()[canonicalize_name(requirement.name)])


def test_package_asks_for_neither_jupyter_nor_torchattacks():
    runtime = {Requirement(text).name for text in PROJECT["dependencies"]}
    notebooks = {Requirement(t).name for t in PROJECT["optional-dependencies"]["notebooks"]}
    assert not runtime & (notebooks | {"torchattacks"})
    assert {"torch", "torchvision", "timm", "numpy", "scipy", "pandas"} <= runtime


def test_package_admits_the_older_torch():
    bounds = {r.name: r.specifier for r in _direct()}
    assert bounds["torch"].contains("2.11.0")
    assert bounds["torchvision"].contains("0.26.0")


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


def test_gpu_packages_are_asked_for_on_linux_only():
    for requirement in _requirements():
        if requirement.name.startswith(("nvidia-", "cuda-", "triton")):
            assert requirement.marker.evaluate({"platform_system": "Linux"})
            assert not requirement.marker.evaluate({"platform_system": "Darwin"})


def test_torchattacks_has_one_pin_and_a_step_of_its_own():
    assert [Requirement(text).name for text in NO_DEPS.findall(LOCK)] == ["torchattacks"]
    script = (ROOT / "run_all.sh").read_text()
    assert "s/^# pip install --no-deps //p" in script
    for other in ("run_all.sh", "environment.yml"):
        assert "torchattacks==" not in (ROOT / other).read_text()
    told = re.findall(r"torchattacks==([\d.]+)", (ROOT / "pyproject.toml").read_text())
    assert set(told) == {_pins()["torchattacks"]}


def test_conda_installs_the_same_lock():
    python, pip, packages = ENVIRONMENT["dependencies"]
    assert ENVIRONMENT["name"] == PROJECT["name"] == "unlearnkit"
    assert (python, pip) == ("python=3.11", "pip")
    assert packages == {"pip": ["-r requirements.txt"]}


# ---- One version, one Python, one command ------------------------------------------------------


def test_one_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert PROJECT["version"] == unlearnkit.__version__ == citation["version"]
    assert citation["references"][0]["doi"] == "10.1145/3701716.3715598"


def test_one_python():
    steps = WORKFLOW["jobs"]["check"]["steps"]
    versions = [s["with"]["python-version"] for s in steps if "python-version" in s.get("with", {})]
    assert versions == ["3.11"]
    assert PROJECT["requires-python"] == ">=3.11"
    assert "python3.11" in (ROOT / "run_all.sh").read_text()


def test_ci_and_workflow_run_the_same_command():
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "exec ./run_all.sh --check"
    commands = [step["run"] for step in WORKFLOW["jobs"]["check"]["steps"] if "run" in step]
    assert commands == ["bash .ci/run"]


@pytest.mark.parametrize("script", ["run_all.sh", ".ci/run"])
def test_script_is_executable_bash(script):
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_help_names_every_profile():
    shown = subprocess.run(
        ["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "--check" in shown
    for profile in (ROOT / "unlearnkit/profiles").glob("*.toml"):
        assert f"{profile.stem} (" in shown


# ---- run_all.sh, with a stand-in for Python that writes down what it is asked ----------------

STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"$LOG"
if [[ $* == "-m venv --clear .venv" ]]; then
  mkdir -p .venv/bin && touch .venv/pyvenv.cfg && cp "$0" .venv/bin/python
fi
[[ -z "${FAIL:-}" || $* != *"$FAIL"* ]]
"""


class Checkout:
    """A copy of what the set-up needs, in a folder with a space in its name."""

    def __init__(self, folder: Path):
        self.folder = folder / "a check-out"
        self.folder.mkdir()
        for name in ("run_all.sh", "requirements.txt"):
            shutil.copy(ROOT / name, self.folder)
        self.python = self._stand_in(folder / "python-stand-in")
        self.conda = folder / "conda env"
        self._stand_in(self.conda / "bin/python")
        self.log = folder / "log"

    @staticmethod
    def _stand_in(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN)
        path.chmod(0o755)
        return path

    def run(self, *arguments: str, **variables: object) -> subprocess.CompletedProcess:
        self.log.write_text("")
        kept = {k: v for k, v in os.environ.items() if k not in ("CONDA_PREFIX", "PYTHON")}
        given = {"PYTHON": self.python, "LOG": self.log, **variables}
        return subprocess.run(
            ["bash", str(self.folder / "run_all.sh"), *arguments],
            env=kept | {k: str(v) for k, v in given.items()},
            capture_output=True,
            text=True,
        )

    def asked(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if word in line]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


@pytest.mark.parametrize("conda", [False, True])
def test_set_up_runs_once_and_again_when_a_pin_changes(checkout, conda):
    where = {"CONDA_PREFIX": checkout.conda} if conda else {}
    first = checkout.run(**where)
    assert first.returncode == 0, first.stderr
    assert len(checkout.asked("pip install")) == 3
    assert len(checkout.asked("venv")) == (0 if conda else 1)
    assert checkout.asked("unlearnkit") == ["-m unlearnkit run --profile quick"]
    assert (checkout.folder / ".venv").exists() != conda

    second = checkout.run("01", "--profile", "smoke", **where)
    assert second.returncode == 0 and not second.stdout
    assert not checkout.asked("pip")
    assert checkout.asked("unlearnkit") == ["-m unlearnkit run 01 --profile smoke"]

    lock = checkout.folder / "requirements.txt"
    lock.write_text(lock.read_text().replace("timm==", "timm==0"))
    checkout.run(**where)
    assert len(checkout.asked("pip install")) == 3
    assert not checkout.asked("venv") and not checkout.asked("--ignore-installed")


@pytest.mark.parametrize("conda", [False, True])
@pytest.mark.parametrize("step", ["requirements.txt", "torchattacks", "--editable"])
def test_interrupted_set_up_is_repaired(checkout, conda, step):
    where = {"CONDA_PREFIX": checkout.conda} if conda else {}
    broken = checkout.run(FAIL=step, **where)
    assert broken.returncode == 1
    assert broken.stderr.startswith("run_all.sh: could not install")
    assert len(broken.stderr.splitlines()) == 1
    assert not checkout.asked("unlearnkit run")

    assert checkout.run(**where).returncode == 0
    assert len(checkout.asked("--ignore-installed")) == (1 if conda else 0)
    assert len(checkout.asked("venv --clear")) == (0 if conda else 1)
    checkout.run(**where)
    assert not checkout.asked("pip")


def test_environment_made_by_hand_is_kept(checkout):
    checkout.run()
    (checkout.folder / ".venv/unlearnkit-setup.txt").unlink()
    checkout.run()
    assert len(checkout.asked("pip install")) == 3
    assert not checkout.asked("venv")


def test_check_ends_with_the_tests(checkout):
    assert checkout.run("--check", "-k", "metrics").returncode == 0
    *_, lint, form, tests = checkout.log.read_text().splitlines()
    assert lint.startswith("-m ruff check")
    assert form.startswith("-m ruff format --check")
    assert tests == "-m pytest -k metrics"
    failed = checkout.run("--check", FAIL="ruff check")
    assert failed.returncode == 1 and "ruff check" in failed.stderr
    assert not checkout.asked("pytest")


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"PYTHON": "/no/such/python"}, "/no/such/python is not Python 3.11 or newer"),
        ({"CONDA_PREFIX": "/no/such/env"}, "CONDA_PREFIX is /no/such/env"),
        ({"FAIL": "-m venv"}, "could not make .venv"),
    ],
)
def test_bad_environment_is_one_line(checkout, variables, reason):
    done = checkout.run("--setup", **variables)
    assert done.returncode == 1
    assert done.stderr.startswith(f"run_all.sh: {reason}")
    assert len(done.stderr.splitlines()) == 1


# ---- The package without Jupyter ---------------------------------------------------------------

IMPORT_ALL = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top.startswith(("jupyter", "nb", "ipy", "IPython", "papermill")):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import unlearnkit

def load(package):
    for found in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        try:
            module = importlib.import_module(found.name)
        except ImportError as error:
            yield f"{found.name}: {error}"
        else:
            if found.ispkg:
                yield from load(module)

sys.exit("; ".join(load(unlearnkit)) or None)
"""


def test_every_module_imports_without_jupyter():
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stdout
