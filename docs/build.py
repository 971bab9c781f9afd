"""Build the site: `python docs/build.py FOLDER`. Nothing is executed and nothing is fetched.

Pages, notebooks and figures are put together in a temporary folder, from which Sphinx builds. What
lies in docs/ here is at the top there, so that the address of a page has no docs/ in it. Methods
and functions are listed as they are registered and public when it is built.
"""

import importlib
import inspect
import json
import re
import shutil
import sys
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from sphinx.cmd.build import main as sphinx

from unlearnkit.methods import METHODS, Method

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]
MODULES = ["data", "models", "scopes", "training", "methods", "attacks", "metrics", "measures"]
MODULES += ["fairness", "distance", "membership", "cost", "study", "report", "report.claims"]
MODULES += ["report.findings", "report.membership", "report.figures", "api", "api.audit"]
TYPES = {bool: "true or false", int: "whole number", float: "number"}
LIMITS = {"ge": "of at least", "gt": "above", "le": "at most", "lt": "below"}


def moved(text: str, folder: Path) -> str:
    """Return a page of `folder` (in the repository) with its links as they are on the site."""

    def link(found: re.Match) -> str:
        path = (folder / found[1]).resolve().relative_to(ROOT).as_posix()
        top = path.removeprefix("docs/").replace("CONTRIBUTING.md", "contributing.md")
        if not path.startswith(("docs/", "notebooks/", "figures/")) and top == path:
            return f"]({REPOSITORY}/blob/main/{path})"
        return f"]({'../' * (folder.name == 'notebooks')}{top}{found[2] or ''})"

    return re.sub(r"\]\((?!\w+:)([^)#\s]+)(#[^)]*)?\)", link, text)


def notebook(text: str) -> str:
    """Return a notebook whose pictures have an alt text: their own, or else the heading above."""
    content, heading = json.loads(text), ""
    for cell in content["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = moved("".join(cell["source"]), ROOT / "notebooks")
            heading = (re.findall(r"^#+ (.*)", cell["source"], re.MULTILINE) or [heading])[-1]
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                alt = output["metadata"].get("image/png", {}).get("alt", f"Figure: {heading}")
                cell["metadata"]["mystnb"] = {"image": {"alt": alt}}
    return json.dumps(content)


def overview(methods: list[Method]) -> str:
    """Return a table with a row a method, each linked to its section."""
    rows = [
        (f"[{m.title}](#method-{m.name})", m.paper, m.needs_retain, m.passes, m.published)
        for m in methods
    ]
    head = ("Method", "Paper", "Needs the retain set", "Passes over the data", "Published settings")
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


def described(method: Method) -> str:
    """Return a method's section of the page of methods."""
    path = Path(inspect.getsourcefile(method.function)).relative_to(ROOT).as_posix()
    full = inspect.getmodule(method.function).__doc__.partition("\n\n")[0].strip()
    start = f"{full} It is called `{method.name}` in a profile."
    facts = {"Paper": method.paper, "Needs the retain set": method.needs_retain}
    facts |= {"Passes over the data": method.passes, "Published settings": method.published}
    lines = "\n".join(f"* {name}: {fact}" for name, fact in facts.items() if fact)
    parts = [
        f"(method-{method.name})=\n## {method.title}",
        start,
        lines,
        inspect.getdoc(method.function),
    ]
    rows = [
        f"| `{o}` | {code(method.defaults[o])} | {values(k)} |" for o, k in method.kinds.items()
    ]
    if rows:
        parts.append("\n".join(["| Option | Default | Values |", "|---|---|---|", *rows]))
    return "\n\n".join([*parts, f"[Source code]({REPOSITORY}/blob/main/{path})"])


def code(value: object) -> str:
    """Return a value as it is written in a profile, in code style."""
    return f"`{json.dumps(value)}`"


def values(kind: Any) -> str:
    """Return what an option can be, in words: its choices, or its type and range."""
    if get_origin(kind) is Literal:
        return ", ".join(map(code, get_args(kind)))
    base, *fields = get_args(kind) or [kind]
    limits = [asdict(limit).items() for field in fields for limit in field.metadata]
    words = [f"{LIMITS[name]} {bound}" for limit in limits for name, bound in limit]
    return " ".join([TYPES[base], " and ".join(words)]).strip()


def listed(name: str) -> str:
    """Return the section of module `name` in the list of functions."""
    module = importlib.import_module(f"unlearnkit.{name}")
    own = [
        key
        for key, value in vars(module).items()
        if getattr(value, "__module__", "") == module.__name__ and key[0] != "_"
    ]
    parts = [f"## unlearnkit.{name}", module.__doc__.partition("\n\n")[0], "```{eval-rst}"]
    for key in getattr(module, "__all__", own):
        value = getattr(module, key)
        if inspect.isclass(value):
            parts.append(f".. autoclass:: unlearnkit.{name}.{key}\n   :members:\n")
        elif callable(value):
            parts.append(f".. autofunction:: unlearnkit.{name}.{key}\n")
    return "\n\n".join([*parts, "```"])


def assemble(folder: Path) -> None:
    """Put the site's sources together in `folder`."""
    pages = {path.name: path for path in (ROOT / "docs").glob("*.md")}
    pages |= {"README.md": ROOT / "README.md", "contributing.md": ROOT / "CONTRIBUTING.md"}
    texts = {name: moved(path.read_text("utf-8"), path.parent) for name, path in pages.items()}
    order = sorted(METHODS.values(), key=lambda method: method.order)
    texts["methods.md"] += "\n" + "\n\n".join([overview(order), *map(described, order)])
    texts["api.md"] += "\n" + "\n\n".join(map(listed, MODULES))
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        texts[f"notebooks/{path.name}"] = notebook(path.read_text("utf-8"))
    for path in (ROOT / "figures").glob("*/*.png"):
        (folder / path.relative_to(ROOT).parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    (folder / "notebooks").mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text, "utf-8")


def build(out: Path) -> int:
    """Build the site into `out`; return the exit status of Sphinx, to which warnings are errors."""
    with tempfile.TemporaryDirectory() as name:
        pages = Path(name) / "pages"
        assemble(pages)
        how = ["-q", "-W", "--keep-going", "-E", "-c", str(ROOT / "docs"), "-d", f"{name}/trees"]
        status = sphinx([*how, str(pages), f"{name}/site"])  # MyST-NB writes beside it, too
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(f"{name}/site", out)
        return status


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])))
