"""A folder as people, the kubelet and accidents leave it: read whole, or refused in one line that names the file."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.policy import folder
from proxy.policy.folder import Unreadable, look, read
from tests.proxy.policy.conftest import allow, mode_of


def names(reading) -> list[str]:
    return [policy.metadata.name for policy in reading.resources.authorization_policies]


def test_every_file_of_yaml_or_json_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.yml").write_text(allow("*", name="two"))
    (tmp_path / "a.yaml").write_text(allow("*", name="one") + "---\n" + mode_of("STRICT"))
    (tmp_path / "c.json").write_text('{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}')
    reading = read(tmp_path)
    assert names(reading) == ["one", "two"]
    assert len(reading.resources.peer_authentications) == 1
    assert len(reading.resources.foreign) == 1
    assert reading.files == 3


def test_other_files_hidden_files_and_folders_are_left_alone(tmp_path):
    for name in ("README.md", ".hidden.yaml", "a.yaml.swp"):
        (tmp_path / name).write_text("{ not: yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert read(tmp_path).files == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "bad.yaml"),
        (allow("*").replace("principals", "principal"), "bad.yaml:"),
        (mode_of("STRONG"), "bad.yaml:"),
        ("just text", "bad.yaml:1"),
        ("kind: AuthorizationPolicy\n", "bad.yaml:1"),
    ],
)
def test_one_bad_file_keeps_all_of_them_out_and_is_named_with_its_line(tmp_path, text, said):
    (tmp_path / "good.yaml").write_text(allow("*"))
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(Unreadable) as caught:
        read(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_further_errors_are_counted(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text("just text")
    with pytest.raises(Unreadable, match="2 more"):
        read(tmp_path)


def test_warnings_do_not_keep_policies_out(tmp_path):
    (tmp_path / "a.yaml").write_text(mode_of("STRICT", name="a") + "---\n" + mode_of("DISABLE", name="b"))
    assert read(tmp_path).warnings


def test_what_changes_is_seen_and_what_does_not_is_not(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(allow("*"))
    seen = look(tmp_path)
    assert look(tmp_path) == seen == read(tmp_path).seen
    file.write_text(allow("*", name="longer"))
    changed = look(tmp_path)
    assert changed != seen
    (tmp_path / "b.yaml").write_text("")
    assert look(tmp_path) != changed


def test_the_kubelets_swap_of_a_config_map_is_seen_though_names_stay(tmp_path):
    for version, name in (("..one", "first"), ("..two", "other")):
        (tmp_path / version).mkdir()
        (tmp_path / version / "policy.yaml").write_text(allow("*", name=name))
    (tmp_path / "..data").symlink_to("..one")
    (tmp_path / "policy.yaml").symlink_to("..data/policy.yaml")
    before = read(tmp_path)
    (tmp_path / "..new").symlink_to("..two")
    (tmp_path / "..new").rename(tmp_path / "..data")
    after = read(tmp_path)
    assert before.seen != after.seen
    assert (names(before), names(after)) == (["first"], ["other"])


def test_files_that_change_while_they_are_read_are_read_again(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text(allow("*", name="old"))
    (tmp_path / "b.yaml").write_text(allow("*", name="old-b"))
    real, changed = folder.read_file, []

    def read_and_change(path, **options):
        content = real(path, **options)
        if path.name == "a.yaml" and not changed:
            changed.append(path)
            path.write_text(allow("*", name="newer"))
        return content

    monkeypatch.setattr(folder, "read_file", read_and_change)
    assert names(read(tmp_path)) == ["newer", "old-b"]


def test_a_folder_that_never_stands_still_is_refused_and_not_half_taken(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text(allow("*"))
    real = folder.read_file

    def read_and_change(path, **options):
        content = real(path, **options)
        path.write_text(path.read_text() + "\n# again")
        return content

    monkeypatch.setattr(folder, "read_file", read_and_change)
    with pytest.raises(Unreadable, match="changes while it is read"):
        read(tmp_path)


def test_a_folder_or_a_file_that_is_gone_or_no_file_is_refused_by_name(tmp_path):
    with pytest.raises(Unreadable, match="nowhere"):
        read(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.yaml")  # must not be waited for
    with pytest.raises(Unreadable, match=r"pipe\.yaml"):
        read(tmp_path)


def test_a_link_that_leads_nowhere_is_refused_by_name(tmp_path):
    (tmp_path / "a.yaml").symlink_to("nowhere")
    with pytest.raises(Unreadable, match=r"a\.yaml"):
        read(tmp_path)


def test_size_and_number_of_files_are_bounded(tmp_path, monkeypatch):
    (tmp_path / "a.yaml").write_text("# " + "x" * 600)
    (tmp_path / "b.yaml").write_text("# " + "x" * 600)
    monkeypatch.setattr(folder, "MAX_BYTES", 1000)
    with pytest.raises(Unreadable, match=r"b\.yaml"):
        read(tmp_path)
    monkeypatch.setattr(folder, "MAX_FILES", 1)
    with pytest.raises(Unreadable, match="more than 1 files"):
        look(tmp_path)


MODES = mode_of("STRICT", selector={"app": "x"}, ports={80: "DISABLE"})
WHOLE = f"{allow('cluster.local/ns/a/sa/b')}---\n{MODES}".encode()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.integers(0, len(WHOLE)).map(lambda cut: WHOLE[:cut]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.yaml").write_bytes(content)
    try:
        read(tmp_path)
    except Unreadable as error:
        assert "a.yaml" in str(error)
        assert "\n" not in str(error)


def test_any_flipped_byte_is_read_or_refused_in_one_line(tmp_path):
    for place in range(0, len(WHOLE), 3):
        (tmp_path / "a.yaml").write_bytes(WHOLE[:place] + bytes([WHOLE[place] ^ 0x55]) + WHOLE[place + 1 :])
        try:
            read(tmp_path)
        except Unreadable as error:
            assert "\n" not in str(error)
