"""Changing values inside YAML or JSON text, byte for byte as it was everywhere else.

A node of the parsed text knows where it stands. The difference between its old value and the new one becomes edits:
lines that are inserted or taken out in block style, entries between brackets in flow style. What this cannot do
(shared anchors, merge keys, odd layouts) raises CannotEdit; whoever calls reads the new text back and compares.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from mesh.documents import to_yaml
from mesh.plain_scalars import plain_scalar

# A line without content: blank, or a comment.
_NO_CONTENT: Final = re.compile(r"[ \t]*(#.*)?\r?\n?\Z")

# Text that needs no quotes, wherever it stands; whether it would be read as a string is another question.
_PLAIN_WORD: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")


class CannotEdit(Exception):
    """The text would have to be changed in a way that is not known here."""


@dataclass(frozen=True, slots=True)
class Edit:
    """`text[start:end]` becomes `replacement`."""

    start: int
    end: int
    replacement: str


def compose(text: str) -> list[yaml.Node]:
    """The root node of each document of `text` that holds anything. Raises yaml.YAMLError."""
    loader = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
    return [node for node in yaml.compose_all(text, loader) if node is not None and not _is_nothing(node)]


def _is_nothing(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.style and plain_scalar(node.value) is None


def apply_edits(text: str, edits: list[Edit]) -> str:
    """`text` with all `edits`; those at one place in the order in which they are given."""
    parts, position = [], 0
    for edit in sorted(edits, key=lambda one: one.start):
        if edit.start < position:
            raise CannotEdit
        parts += [text[position : edit.start], edit.replacement]
        position = edit.end
    return "".join([*parts, text[position:]])


def end_of(text: str, node: yaml.Node) -> int:
    """Where the content of `node` ends. (A block's own end mark is behind the comments that follow it.)"""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        if isinstance(node, yaml.SequenceNode):
            return _end_of_child(text, node, node.value[-1])
        key, value = node.value[-1]
        return max(end_of(text, key), _end_of_child(text, key, value))
    end: int = node.end_mark.index
    if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
        # Its mark is behind the line break, and perhaps behind blank lines.
        stripped = len(text[:end].rstrip(" "))
        return stripped - 1 if stripped and text[stripped - 1] == "\n" else stripped
    return end


def _end_of_child(text: str, before: yaml.Node, node: yaml.Node) -> int:
    if node.start_mark.index < before.start_mark.index:
        raise CannotEdit  # an alias: the node stands elsewhere
    return end_of(text, node)


class Editor:
    """Collects the edits of one text, whose last line must have its line end."""

    def __init__(self, text: str) -> None:
        self.edits: list[Edit] = []
        self._text = text
        self._newline = "\r\n" if "\r\n" in text else "\n"

    def change(self, node: yaml.Node, old: Any, new: Any) -> None:
        """Make `node`, whose value is `old`, say `new`. Raises CannotEdit."""
        if _same(old, new):
            return
        if isinstance(node, yaml.MappingNode) and isinstance(old, Mapping) and isinstance(new, Mapping) and old and new:
            self._change_mapping(node, old, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(old, list) and isinstance(new, list) and old and new:
            self._change_sequence(node, old, new)
        else:
            self._replace(node, new)

    # Mappings

    def _change_mapping(self, node: yaml.MappingNode, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        nodes = {_key(key): (key, value) for key, value in node.value}
        gone = [key for key in old if key not in new]
        come = [key for key in new if key not in old]
        if not set(old) <= set(nodes):
            raise CannotEdit  # some come from a merge key
        for name in old:
            key, value = nodes[name]
            if name in new:
                if not _same(old[name], new[name]) and value.start_mark.index < key.start_mark.index:
                    raise CannotEdit
                self._change_value(key, value, old[name], new[name], flow=bool(node.flow_style))
            elif come:  # one takes the other's place
                other = come.pop(0)
                self._put(key, value, other, new[other], flow=bool(node.flow_style))
                gone.remove(name)
        if node.flow_style:
            self._take_out_of_flow([(*nodes[name], name in gone) for name in nodes])
        else:
            for name in gone:
                self._take_out_lines(nodes[name][0].start_mark.index, self._end(*nodes[name]))
        if come:
            last = node.value[-1]
            self._append({name: new[name] for name in come}, node, self._end(*last))

    def _change_value(self, key: yaml.Node, value: yaml.Node, old: Any, new: Any, *, flow: bool) -> None:
        if _same(old, new):
            return
        is_empty = old is None and isinstance(value, yaml.ScalarNode) and value.start_mark.index == value.end_mark.index
        if is_empty and not flow and isinstance(new, (dict, list)):
            indent = key.start_mark.column + (2 if isinstance(new, dict) else 0)
            lines = _block_of(new, indent)
            end = self._line_end(value.end_mark.index)
            self.edits.append(Edit(end, end, self._with_newlines("\n" + lines.rstrip("\n"))))
            return
        self.change(value, old, new)

    def _end(self, key: yaml.Node, value: yaml.Node) -> int:
        return max(key.end_mark.index, _end_of_child(self._text, key, value))

    def _append(self, fields: Mapping[str, Any], node: yaml.MappingNode, end: int) -> None:
        if node.flow_style:
            self.edits.append(Edit(end, end, "".join(f", {_flow_field(name, fields[name])}" for name in fields)))
        else:
            self._insert_lines(self._next_line(end), _indented(to_yaml_fields(fields), node.start_mark.column))

    def _put(self, key: yaml.Node, value: yaml.Node, name: str, new: Any, *, flow: bool) -> None:
        """Another field in the place of `key` and `value`, in their style."""
        if flow:
            replacement = _flow_field(name, new)
        elif isinstance(value, yaml.CollectionNode) and value.flow_style:
            replacement = f"{name}: {_plain_flow(new)}"
        else:
            replacement = _indented(to_yaml_fields({name: new}), key.start_mark.column).strip()
        self.edits.append(Edit(key.start_mark.index, self._end(key, value), self._with_newlines(replacement)))

    # Sequences

    def _change_sequence(self, node: yaml.SequenceNode, old: list[Any], new: list[Any]) -> None:
        if any(item.start_mark.index < node.start_mark.index for item in node.value):
            raise CannotEdit
        matcher = difflib.SequenceMatcher(None, [_name(item) for item in old], [_name(item) for item in new], False)
        gone: set[int] = set()
        for kind, i1, i2, j1, j2 in matcher.get_opcodes():
            if kind == "equal":
                for i, j in zip(range(i1, i2), range(j1, j2), strict=True):
                    self.change(node.value[i], old[i], new[j])
                continue
            gone |= set(range(i1, i2))
            if j2 > j1:
                self._insert_items(node, i1, new[j1:j2])
        if node.flow_style:
            self._take_out_of_flow([(item, item, index in gone) for index, item in enumerate(node.value)])
        else:
            for index in sorted(gone):
                self._take_out_lines(self._dash(node, index), end_of(self._text, node.value[index]))

    def _insert_items(self, node: yaml.SequenceNode, index: int, items: list[Any]) -> None:
        at_end = index == len(node.value)
        if node.flow_style:
            flow = [_flow(item) for item in items]
            if at_end:
                end = end_of(self._text, node.value[-1])
                self.edits.append(Edit(end, end, "".join(f", {item}" for item in flow)))
            else:
                start = node.value[index].start_mark.index
                self.edits.append(Edit(start, start, "".join(f"{item}, " for item in flow)))
            return
        column = node.start_mark.column
        if at_end:
            place = self._next_line(end_of(self._text, node.value[-1]))
        else:
            place = self._above_comments(self._line_start(self._dash(node, index)))
        self._insert_lines(place, _block_of(items, column))

    def _dash(self, node: yaml.SequenceNode, index: int) -> int:
        """Where the dash of an item stands; nothing but white space may be before it in its line."""
        start = node.value[index].start_mark.index
        dash = self._text.rfind("-", 0, start)
        if dash < 0 or self._text[dash + 1 : start].strip() or dash - self._line_start(dash) != node.start_mark.column:
            raise CannotEdit
        return dash

    # Scalars, and whatever changes its kind

    def _replace(self, node: yaml.Node, new: Any) -> None:
        if isinstance(node, yaml.ScalarNode) and node.style in ("|", ">"):
            raise CannotEdit
        if isinstance(node, yaml.CollectionNode) and not node.flow_style:
            raise CannotEdit
        # libyaml's parser says "" of plain scalars, PyYAML's own None.
        quote = (node.style or "") if isinstance(node, yaml.ScalarNode) else None
        if isinstance(new, str) and quote == "'" and new.isprintable():
            text = "'" + new.replace("'", "''") + "'"
        elif isinstance(new, str) and quote == "":
            text = to_yaml_fields({"k": new}).removeprefix("k: ").removesuffix("\n")
            text = _flow(new) if "\n" in text or text[0] in "|>[{" or "," in text else text
        else:
            text = _flow(new)
        self.edits.append(Edit(node.start_mark.index, node.end_mark.index, text))

    # Lines

    def _insert_lines(self, place: int, lines: str) -> None:
        self.edits.append(Edit(place, place, self._with_newlines(lines)))

    def _take_out_lines(self, start: int, end: int) -> None:
        first = self._line_start(start)
        if self._text[first:start].strip():
            raise CannotEdit
        self.edits.append(Edit(first, self._next_line(end), ""))

    def _take_out_of_flow(self, entries: list[tuple[yaml.Node, yaml.Node, bool]]) -> None:
        """Take entries out from between brackets, each with the comma that came with it."""
        if entries and all(gone for *_, gone in entries):
            raise CannotEdit
        kept = -1
        for index, (first, last, gone) in enumerate(entries):
            if not gone:
                kept = index
                continue
            if kept >= 0:
                self.edits.append(Edit(self._end(*entries[index - 1][:2]), self._end(first, last), ""))
            else:
                self.edits.append(Edit(first.start_mark.index, entries[index + 1][0].start_mark.index, ""))

    def _line_start(self, index: int) -> int:
        return self._text.rfind("\n", 0, index) + 1

    def _line_end(self, index: int) -> int:
        end = self._text.find("\n", index)
        end = len(self._text) if end < 0 else end
        return end - 1 if self._text[end - 1 : end] == "\r" else end

    def _next_line(self, index: int) -> int:
        end = self._text.find("\n", index)
        return len(self._text) if end < 0 else end + 1

    def _above_comments(self, line: int) -> int:
        """The start of the comments right above the line that starts at `line`: they belong to it."""
        while line > 0:
            above = self._line_start(line - 1)
            if not _NO_CONTENT.match(self._text[above:line]):
                break
            line = above
        return line

    def _with_newlines(self, text: str) -> str:
        return text if self._newline == "\n" else text.replace("\n", self._newline)


def to_yaml_fields(fields: Mapping[str, Any]) -> str:
    """The lines of a map's `fields`, without indentation."""
    return "".join(to_yaml({name: value}) for name, value in fields.items())


def _block_of(value: Any, indent: int) -> str:
    if isinstance(value, list):
        return _indented(to_yaml({"k": value}).removeprefix("k:\n"), indent) if value else ""
    return _indented(to_yaml_fields(value), indent)


def _indented(text: str, columns: int) -> str:
    margin = " " * columns
    return "".join(f"{margin}{line}" if line.strip() else line for line in text.splitlines(keepends=True))


def _flow(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _plain_flow(value: Any) -> str:
    """Flow style as people write it between blocks: `{port: 9000}`, quoted only where it must be."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_plain_flow(name)}: {_plain_flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_plain_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN_WORD.fullmatch(value) and isinstance(plain_scalar(value), str):
        return value
    return _flow(value)


def _flow_field(name: str, value: Any) -> str:
    return f"{_flow(name)}: {_flow(value)}"


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise CannotEdit
    value = node.value if node.style else plain_scalar(node.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _name(item: Any) -> str:
    """What tells the items of a list apart: a name where they have one."""
    if isinstance(item, dict) and isinstance(item.get("name"), str):
        return f"name {item['name']}"
    return json.dumps(item, sort_keys=True)


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same type: 1 is not true, nor 1.0."""
    return one is other or (one == other and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
