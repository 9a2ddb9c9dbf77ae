"""Manifests as text."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from injector.manifest import change_manifest
from mesh.documents import Document, read_documents
from mesh.errors import UserError

TWO = b"""# first
apiVersion: v1
kind: Pod   # of one
metadata: {name: one}
---
apiVersion: v1
kind: List
items:
- {kind: Pod, metadata: {name: two}}   # in flow
- kind: Pod
  metadata:
    name: three
...
# last
"""


def marked(document: Document) -> dict[str, Any]:
    metadata = document.value["metadata"]
    return {**document.value, "metadata": {**metadata, "seen": True}}


def unmarked(document: Document) -> dict[str, Any]:
    metadata = {key: value for key, value in document.value["metadata"].items() if key != "seen"}
    return {**document.value, "metadata": metadata}


def values(text: bytes) -> list[Any]:
    documents, problems = read_documents(text, "")
    assert problems == ()
    return [document.value for document in documents]


def test_every_resource_is_changed_and_every_comment_stays() -> None:
    changed = change_manifest(TWO, "two.yaml", marked)

    assert [value["metadata"]["seen"] for value in values(changed.text)] == [True, True, True]
    assert [
        comment for comment in (b"# first", b"# of one", b"# in flow", b"# last", b"...") if comment not in changed.text
    ] == []
    assert changed.rewritten == ()


@pytest.mark.parametrize(
    "text",
    [
        TWO,
        TWO.replace(b"\n", b"\r\n"),
        TWO.removesuffix(b"...\n# last\n").rstrip(b"\n"),
        TWO.removesuffix(b"...\n# last\n").rstrip(b"\n").replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + TWO,
        b"---\n" + TWO,
        b'{"kind": "Pod", "metadata": {"name": "x"}}',
    ],
)
def test_changing_back_gives_the_bytes(text: bytes) -> None:
    changed = change_manifest(text, "two.yaml", marked)

    assert changed.text != text
    assert change_manifest(changed.text, "two.yaml", unmarked).text == text


@pytest.mark.parametrize("text", [TWO, b"", b"# nothing\n", b"---\n---\n", b"a: &x [1]\nb: *x\n"])
def test_what_nobody_changes_is_not_touched(text: bytes) -> None:
    assert change_manifest(text, "x", lambda document: document.value).text is text


def test_a_document_that_cannot_be_edited_is_written_anew_alone() -> None:
    text = b"kind: Pod\nmetadata: &m {name: a}  # lost\nspec: *m\n--- # kept\nkind: Pod\nmetadata: {name: b}  # kept\n"

    changed = change_manifest(text, "x", marked)

    assert changed.rewritten == ("Pod a",)
    assert b"# lost" not in changed.text
    assert changed.text.count(b"# kept") == 2
    first, second = values(changed.text)
    assert (first["spec"], first["metadata"]) == ({"name": "a"}, {"name": "a", "seen": True})
    assert second["metadata"] == {"name": "b", "seen": True}


def test_a_list_that_is_written_anew_becomes_documents() -> None:
    text = b"kind: List\nitems:\n- kind: Pod\n  metadata: &m {name: a}\n- kind: Pod\n  metadata: *m\n"

    assert [value["metadata"] for value in values(change_manifest(text, "x", marked).text)] == [
        {"name": "a", "seen": True}
    ] * 2


@pytest.mark.parametrize("text", [b"a: [", b"\xff", b"a: 1\na: 2\n", b"- 1\n", b"{{ .Values.x }}\n"])
def test_a_file_that_does_not_parse_is_named_with_its_line(text: bytes) -> None:
    with pytest.raises(UserError, match=r"\Aweb\.yaml:( line)? ?\d+") as refused:
        change_manifest(TWO + b"---\n" + text, "web.yaml", marked)

    assert "\n" not in str(refused.value)


@given(st.integers(0, len(TWO)), st.integers(0, 255))
def test_a_file_that_is_cut_or_damaged_is_changed_well_or_refused(at: int, byte: int) -> None:
    for text in (TWO[:at], TWO[:at] + bytes([byte]) + TWO[at + 1 :]):
        try:
            wanted = [marked(document) for document in read_documents(text, "")[0]]
            changed = change_manifest(text, "x", marked)
        except (UserError, KeyError, TypeError):  # refused, or no resource that this test's change takes
            continue
        assert values(changed.text) == wanted
