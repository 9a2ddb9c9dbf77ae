"""Manifests as text: each resource is handed to somebody, and what comes back is put into its place. Pure.

What nobody changed keeps its bytes: comments, order, indentation, quotes, line ends, the byte order mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from injector.text_edits import CannotEdit, Editor, apply_edits, compose, end_of
from mesh.documents import Document, read_documents, to_yaml
from mesh.errors import UserError

_BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True, slots=True)
class Changed:
    """The new text, and the resources whose whole document had to be written anew, without its comments."""

    text: bytes
    rewritten: tuple[str, ...] = ()


def change_manifest(text: bytes, source: str, change: Callable[[Document], Any]) -> Changed:
    """Hand every resource of `text` to `change`, which returns its value or a new one.

    Items of a List are resources of their own. Raises UserError, one line with `source` and the line, where a document
    cannot be read: nothing is changed then. What `change` raises passes.
    """
    documents, problems = read_documents(text, source)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{problems[0]}{more}")
    decoded = text.decode("utf-8")
    mark = _BYTE_ORDER_MARK if decoded.startswith(_BYTE_ORDER_MARK) else ""
    written = decoded.removeprefix(_BYTE_ORDER_MARK)
    wanted = [change(document) for document in documents]
    if all(new is document.value for new, document in zip(wanted, documents, strict=True)):
        return Changed(text)
    parts, position = [], 0
    rewritten: list[str] = []
    for whole in _wholes(written, documents, wanted):
        start, end = written.rfind("\n", 0, whole.start) + 1, _line_end(written, whole.end)
        piece = written[start:end]
        changed = _changed_piece(piece, whole)
        if changed is None:
            rewritten += [document.resource for document in whole.documents]
            changed = _anew(piece, whole)
        parts += [written[position:start], changed]
        position = end
    return Changed((mark + "".join([*parts, written[position:]])).encode(), tuple(rewritten))


@dataclass(frozen=True, slots=True)
class _Whole:
    """One document of the text: where it stands, the resources in it, and what they are to be."""

    start: int
    end: int
    documents: Sequence[Document]
    wanted: Sequence[Any]


def _wholes(text: str, documents: Sequence[Document], wanted: Sequence[Any]) -> Iterator[_Whole]:
    taken = 0
    for root in compose(text):
        count = len(_resources(root))
        of_root = slice(taken, taken + count)
        taken += count
        yield _Whole(root.start_mark.index, _content_end(text, root), documents[of_root], wanted[of_root])


def _content_end(text: str, root: yaml.Node) -> int:
    try:
        return end_of(text, root)
    except CannotEdit:  # an alias stands last; comments behind it go with the document
        end: int = root.end_mark.index
        return len(text[:end].rstrip())


def _resources(root: yaml.Node) -> list[yaml.Node]:
    """The document's node, or those of the items where it is a List, as read_documents has them."""
    if not isinstance(root, yaml.MappingNode):
        return [root]
    fields = {key.value: value for key, value in root.value if isinstance(key, yaml.ScalarNode)}
    items, kind = fields.get("items"), fields.get("kind")
    if isinstance(items, yaml.SequenceNode) and isinstance(kind, yaml.ScalarNode) and kind.value.endswith("List"):
        return list(items.value)
    return [root]


def _changed_piece(piece: str, whole: _Whole) -> str | None:
    """The document with its edits; None where they did not come out as wanted."""
    if all(new is document.value for new, document in zip(whole.wanted, whole.documents, strict=True)):
        return piece
    line_end = "\r\n" if "\r\n" in piece else "\n"
    ended = piece if piece.endswith("\n") else piece + line_end
    editor = Editor(ended)
    try:
        (root,) = compose(ended)
        for node, document, new in zip(_resources(root), whole.documents, whole.wanted, strict=True):
            if new is not document.value:
                editor.change(node, document.value, new)
        changed = apply_edits(ended, editor.edits)
    except (CannotEdit, yaml.YAMLError, ValueError):
        return None
    changed = changed if ended is piece else changed.removesuffix(line_end)
    read, problems = read_documents(changed.encode(), "")
    return changed if not problems and [one.value for one in read] == list(whole.wanted) else None


def _anew(piece: str, whole: _Whole) -> str:
    """The document in our own writing; the items of a List become documents. Its `---` stays."""
    marker = "---\n" if piece.startswith("---") else ""
    text = to_yaml(whole.wanted[0]) if len(whole.wanted) == 1 else to_yaml(whole.wanted).removeprefix("---\n")
    text = text if piece.endswith("\n") else text.removesuffix("\n")
    return marker + text


def _line_end(text: str, index: int) -> int:
    end = text.find("\n", index)
    return len(text) if end < 0 else end + 1
