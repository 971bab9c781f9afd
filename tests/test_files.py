"""Files: read only if they can be trusted, and put out of the way if not."""

import os
from pathlib import Path

import pytest

from unlearnkit import files
from unlearnkit.errors import Unreadable, UserError


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "not a plain file"),
        (Path.mkdir, "not a plain file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a plain file"),
        (lambda path: (path.touch(), os.truncate(path, 2**32)), "at most 67108864 bytes"),
        (lambda path: path.write_bytes(b"[" * 200_000), "recursion"),
        (lambda path: path.write_text("1", encoding="utf-16"), "utf-8"),
        (lambda path: path.write_bytes(b"{"), "line 1 column 2"),
        (lambda path: path.write_bytes(b"9" * 5000), "digits"),
    ],
)
def test_what_is_no_sound_json_is_named(tmp_path, make, why):
    path = tmp_path / "x.json"
    make(path)
    with pytest.raises(Unreadable, match=why) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_json_is_read_if_it_is_there_and_may_be_read(tmp_path):
    path = tmp_path / "x.json"
    for missing in (path, Path(__file__) / "x.json"):
        with pytest.raises(FileNotFoundError):
            files.read_json(missing)
    path.write_text('{"σ": [1, 2.5]}', encoding="utf-8")
    assert files.read_json(path) == {"σ": [1, 2.5]}
    with pytest.raises(UserError, match=r"cannot read .*too long") as caught:
        files.read_json(tmp_path / ("x" * 300))
    assert not isinstance(caught.value, Unreadable)


@pytest.mark.parametrize("first", [Path.mkdir, Path.touch])
@pytest.mark.parametrize("second", [Path.mkdir, Path.touch])
def test_folders_and_files_are_set_aside_one_after_the_other(tmp_path, first, second):
    path = tmp_path / "x.json"
    for make in (first, second):
        make(path)
        if path.is_dir():
            (path / "inside").touch()
        with pytest.warns(UserWarning, match=r"x\.json is damaged; kept as .*\.damaged, computed"):
            files.set_aside(path, "damaged")
    kept = list(tmp_path.iterdir())
    assert all(place.suffix == ".damaged" for place in kept)
    wanted = (
        [False] if first is second is Path.touch else [m is Path.mkdir for m in (first, second)]
    )
    assert sorted(place.is_dir() for place in kept) == sorted(wanted)


def test_a_folder_need_not_be_there_but_must_have_a_possible_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.source_folder("folder: none ") == tmp_path / "none"
    assert files.source_folder("cifar10") is files.source_folder("folder") is None
    for path in ("~nosuchuser/x", "x" * 5000, "a/" * 3000, " ", "a\0b"):
        with pytest.raises(UserError, match="no folder") as caught:
            files.source_folder(f"folder:{path}")
        assert "\n" not in str(caught.value)


def test_an_empty_variable_counts_as_unset(monkeypatch):
    for variable, ask in (("STORE", files.default_folder), ("OUTPUT", files.output_folder)):
        monkeypatch.delenv(f"UNLEARNKIT_{variable}", raising=False)
        unset = ask()
        monkeypatch.setenv(f"UNLEARNKIT_{variable}", "")
        assert ask() == unset and unset.is_absolute()
        monkeypatch.setenv(f"UNLEARNKIT_{variable}", "there")
        assert ask() == Path("there")
