"""Reading policies from real folders, as people and as the kubelet keep them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from control import folder as folder_module
from control.folder import Reading, read_path, read_text
from mesh.errors import UserError


def write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"kind: Test\nmetadata:\n  name: {name}\n")
    return path


def names(reading: Reading) -> list[str]:
    return [document.value["metadata"]["name"] for document in reading.documents]


def test_files_of_policies_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.json", "10.yaml", "notes.txt", "d.yaml.bak", ".hidden.yaml"):
        write(tmp_path / name, name)

    reading = read_path(tmp_path)
    assert names(reading) == ["10.yaml", "a.yml", "b.yaml", "c.json"]
    assert reading.problems == ()
    assert reading.sources == tuple(str(tmp_path / name) for name in ("10.yaml", "a.yml", "b.yaml", "c.json"))
    assert reading.documents[0].source == str(tmp_path / "10.yaml")


def test_folders_within_are_read_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("z.yaml", "a/b/deep.yaml", "a/one.yaml", ".git/config.yaml", "b.yaml/inner.yaml"):
        write(tmp_path / name, name)

    assert names(read_path(tmp_path)) == ["z.yaml"]
    assert names(read_path(tmp_path, recursive=True)) == [
        *("z.yaml", "a/one.yaml", "a/b/deep.yaml", "b.yaml/inner.yaml")
    ]


def test_folders_may_be_nested_deeper_than_calls_may(tmp_path: Path) -> None:
    deep = [tmp_path]
    for _ in range(sys.getrecursionlimit() + 100):
        deep.append(deep[-1] / "d")
    for folder in deep[1:]:
        folder.mkdir()
    try:
        write(tmp_path / "a.yaml", "a")
        assert names(read_path(tmp_path, recursive=True)) == ["a"]
    finally:
        for folder in reversed(deep[1:]):  # whoever clears up after us would call itself as often
            folder.rmdir()


def test_a_tree_of_too_many_folders_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "_MAX_FOLDERS", 3)
    for name in "abc":
        (tmp_path / name).mkdir()

    with pytest.raises(UserError, match="has more than 3 folders in it; give a smaller one"):
        read_path(tmp_path, recursive=True)
    assert read_path(tmp_path) == Reading()


def test_links_to_folders_do_not_lead_round_in_circles(tmp_path: Path) -> None:
    write(tmp_path / "a" / "one.yaml", "one")
    (tmp_path / "a" / "again").symlink_to(tmp_path)

    assert names(read_path(tmp_path, recursive=True)) == ["one"]


def mount(folder: Path, version: str, *files: str) -> None:
    """Put files into `folder` as the kubelet mounts a ConfigMap, in place of those that are there."""
    for name in files:
        write(folder / f"..{version}" / name, f"{version}-{name}")
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..new").symlink_to(f"..{version}")
    (folder / "..new").rename(folder / "..data")


def test_a_config_map_is_read_once_for_each_file(tmp_path: Path) -> None:
    mount(tmp_path, "2026_1", "a.yaml", "b.yaml")

    assert names(read_path(tmp_path)) == ["2026_1-a.yaml", "2026_1-b.yaml"]
    assert names(read_path(tmp_path, recursive=True)) == ["2026_1-a.yaml", "2026_1-b.yaml"]


def test_a_config_map_that_is_swapped_under_way_is_read_as_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount(tmp_path, "1", "a.yaml", "b.yaml")
    real = folder_module.read_documents
    swaps = iter(["2"])

    def swapped_under_way(text: bytes, source: str) -> object:
        for version in swaps:
            mount(tmp_path, version, "a.yaml", "b.yaml")
        return real(text, source)

    monkeypatch.setattr(folder_module, "read_documents", swapped_under_way)
    assert names(read_path(tmp_path)) == ["2-a.yaml", "2-b.yaml"]


def test_a_folder_that_never_stands_still_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount(tmp_path, "0", "a.yaml")
    versions = iter(range(1, 1000))
    real = folder_module.read_documents

    def swapped_again(text: bytes, source: str) -> object:
        mount(tmp_path, str(next(versions)), "a.yaml")
        return real(text, source)

    monkeypatch.setattr(folder_module, "read_documents", swapped_again)
    with pytest.raises(UserError, match="changes faster than it can be read"):
        read_path(tmp_path)


def test_one_file_may_have_any_name(tmp_path: Path) -> None:
    assert names(read_path(write(tmp_path / "policy", "one"))) == ["one"]


def test_a_pipe_that_is_named_is_read_to_its_end() -> None:
    reading_end, writing_end = os.pipe()
    os.write(writing_end, b"kind: Test\nmetadata: {name: piped}\n")
    os.close(writing_end)

    try:
        assert names(read_path(Path(f"/dev/fd/{reading_end}"))) == ["piped"]
    finally:
        os.close(reading_end)


def test_what_is_wrong_with_one_file_does_not_hide_the_others(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a")
    (tmp_path / "b.yaml").write_text("a: [")
    (tmp_path / "c.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "d.yaml")
    write(tmp_path / "e.yaml", "e")

    reading = read_path(tmp_path)
    assert names(reading) == ["a", "e"]
    assert [str(problem).removeprefix(f"{tmp_path}/").partition(": ")[0] for problem in reading.problems] == [
        *("b.yaml:1", "c.yaml", "d.yaml")
    ]
    assert {problem.severity for problem in reading.problems} == {"error"}


def test_a_place_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"does not exist; give a folder of policies, or a file"):
        read_path(tmp_path / "none")
    with pytest.raises(UserError, match="it is no regular file"):
        read_path(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a").chmod(0)

    assert "cannot be read: Permission denied" in str(read_path(tmp_path).problems[0])
    with pytest.raises(UserError, match="Permission denied"):
        read_path(tmp_path / "a.yaml")


def test_an_empty_folder_holds_nothing(tmp_path: Path) -> None:
    assert read_path(tmp_path) == Reading()


def test_more_than_can_be_meant_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        write(tmp_path / name, name)

    monkeypatch.setattr(folder_module, "MAX_FILES", 2)
    with pytest.raises(UserError, match="more than 2 files"):
        read_path(tmp_path)
    monkeypatch.setattr(folder_module, "MAX_FILES", 3)
    monkeypatch.setattr(folder_module, "MAX_BYTES", 80)
    with pytest.raises(UserError, match="give a smaller folder"):
        read_path(tmp_path)


def test_text_from_elsewhere_is_read_likewise_and_readings_add_up(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "a")
    reading = read_text(b"kind: X\nmetadata: {name: x}\n---\n[", "standard input") + read_path(tmp_path)

    assert names(reading) == ["x", "a"]
    assert [problem.source for problem in reading.problems] == ["standard input"]
    assert reading.sources == ("standard input", str(tmp_path / "a.yaml"))
