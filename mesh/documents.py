"""Text → documents whose every field knows its line; values → YAML that Kubernetes reads back as the same values.

A text means what it means to `kubectl`: for plain scalars see mesh/plain_scalars.py; the name of a field that is a
number or a boolean is the string that JSON has for it (`on:` is "true"). Stricter than there: a field that is given
twice, a tag, a `%` directive and a number that JSON cannot write are refused.

Text may come from a stranger: its size, its nesting, what its aliases grow to and how much is reported are bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import yaml

from mesh.plain_scalars import plain_scalar
from mesh.yaml_values import STRING_TAG, Budget, Fault, Path, Reader, Stop, printable, syntax_fault, told

__all__ = ["Document", "Limits", "Path", "Problem", "Severity", "field_name", "read_documents", "to_yaml"]

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about one place of one document. `str()` is one line, in the form that editors jump to."""

    source: str
    line: int  # counted from 1; 0 where none is known
    field: str  # as in spec.rules[0].to[0].operation.ports[0]; "" for the whole
    resource: str  # as in "AuthorizationPolicy shop/web"; "" before it is known
    message: str
    severity: Severity = "error"

    def __str__(self) -> str:
        place = f"{self.source}:{self.line}" if self.line else self.source
        return ": ".join(part for part in (place, self.resource, self.field, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """One resource as it was written: JSON's types alone, and the line (from 1) of each field."""

    value: Mapping[str, Any]
    source: str
    lines: Mapping[Path, int] = field(repr=False)

    def line(self, path: Path = ()) -> int:
        """The line of the field at `path`, or of the nearest field around it whose line is known; 0 where none is."""
        for length in range(len(path), -1, -1):
            if (line := self.lines.get(path[:length])) is not None:
                return line
        return 0

    @property
    def resource(self) -> str:
        """Kind, namespace and name, as problems show them."""
        metadata = self.value.get("metadata")
        if not isinstance(metadata, Mapping):
            metadata = {}
        name = "/".join(printable(metadata[key]) for key in ("namespace", "name") if metadata.get(key))
        return f"{printable(self.value.get('kind') or 'resource')} {name}".rstrip()

    def problem(self, path: Path, message: str, severity: Severity = "error") -> Problem:
        """A problem of the field at `path` of this document."""
        return Problem(self.source, self.line(path), field_name(path), self.resource, message, severity)


def field_name(path: Path) -> str:
    """`path` as people write it: spec.rules[0].when[1].key; a name that has dots itself stands in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", part):
            text += f".{part}"
        else:
            text += f"[{printable(part)!r}]"
    return text.removeprefix(".")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a text may grow to. The defaults are ten times what a large cluster's policies come to."""

    size: int = 8 << 20  # bytes; a ConfigMap holds 1 MiB
    documents: int = 10_000
    nodes: int = 500_000  # scalars, lists and maps, aliases counted as what they stand for
    depth: int = 64  # Istio's deepest resource, an EnvoyFilter with its patch, comes to about 20
    problems: int = 100  # of syntax; who sees a hundred has seen enough


def read_documents(
    text: bytes, source: str, limits: Limits = Limits()
) -> tuple[tuple[Document, ...], tuple[Problem, ...]]:
    """Read YAML or JSON: every document that can be read, and what is wrong with the others.

    `source` names the text in problems. The items of a List are documents of their own, with their own lines. One
    document's fault does not hide the next one. Documents that hold nothing (comments, `---` alone) are left out.
    Never raises for bad text.
    """
    found: list[Document] = []
    problems: list[Problem] = []
    try:
        budget = Budget(limits.nodes)
        for number, (first_line, chunk) in enumerate(_chunks(_decoded(text, limits.size))):
            if number > limits.documents:  # what comes before the first marker is none, as a rule
                raise Stop(first_line, f"there are more than {limits.documents} documents")  # noqa: TRY301
            try:
                for document in _documents(chunk, first_line, source, budget, limits.depth):
                    if len(found) >= limits.documents:
                        raise Stop(document.line(), f"there are more than {limits.documents} documents")
                    found.append(document)
            except Fault as fault:
                problems.append(Problem(source, fault.line, "", "", fault.message))
            if len(problems) >= limits.problems:
                raise Stop(first_line, f"there are {limits.problems} faults")  # noqa: TRY301
    except Stop as stop:
        message = f"{stop.message}; what follows is not read" if stop.line else stop.message
        problems.append(Problem(source, stop.line, "", "", message))
    return tuple(found), tuple(problems)


# Text into chunks of one document each


def _decoded(text: bytes, limit: int) -> str:
    if len(text) > limit:
        raise Stop(0, f"{len(text)} bytes are more than the {limit} that are read at once; split the file")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        raise Stop(0, f"line {line} is not UTF-8 (byte 0x{text[error.start]:02x})") from None


# A document's marker stands at the start of a line and ends whatever comes before it, a quoted string too (YAML 1.1
# §4.3.1). So the text can be cut here before it is parsed, as kubectl cuts it; a % directive before it ends up alone,
# and is refused as there.
_MARKER: Final = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)


def _chunks(text: str) -> Iterator[tuple[int, str]]:
    """The text cut at its `---`, each piece with the number of its first line."""
    start, line = 0, 1
    for marker in _MARKER.finditer(text):
        if marker.start() > start:
            yield line, text[start : marker.start()]
            line += text.count("\n", start, marker.start())
            start = marker.start()
    yield line, text[start:]


# One chunk into documents


def _documents(chunk: str, first_line: int, source: str, budget: Budget, depth: int) -> Iterator[Document]:
    reader = None
    try:
        reader = Reader(chunk, first_line, budget, depth)  # may refuse a character at once
        for value, lines in reader.roots():
            yield from _flattened(value, lines, source)
    except yaml.YAMLError as error:
        raise syntax_fault(error, chunk, first_line) from None
    finally:
        if reader is not None:
            reader.dispose()


def _flattened(value: Any, lines: dict[Path, int], source: str) -> Iterator[Document]:
    """The document, or the items of a List (kubectl writes those), each with lines that count from itself."""
    line = lines[()]
    if value is None:
        return
    if not isinstance(value, dict):
        raise Fault(line, f"{told(value)} where a resource should be: a map with apiVersion, kind and metadata")
    items = value.get("items")
    if not (isinstance(items, list) and str(value.get("kind")).endswith("List")):
        yield Document(value, source, lines)
        return
    of_items: list[dict[Path, int]] = [{(): line} for _ in items]
    for path, at in lines.items():
        if len(path) > 1 and path[0] == "items" and isinstance(path[1], int):
            of_items[path[1]][path[2:]] = at
    for item, its_lines in zip(items, of_items, strict=True):
        if not isinstance(item, dict):
            raise Fault(its_lines[()], f"{told(item)} where an item of the list should be a resource")
        yield Document(item, source, its_lines)


# Writing

_FIRST_FIELDS: Final = ("apiVersion", "kind", "metadata")
_WIDEST: Final = 2**31 - 1  # a line is never folded: what is one string to a reader is one line
_Dumper: Final[Any] = yaml.CSafeDumper if yaml.__with_libyaml__ else yaml.SafeDumper


class _Writer(_Dumper):  # type: ignore[misc]  # the base is found when the module is loaded
    """A dumper that never writes an anchor, and quotes each string that Kubernetes would read as something else."""

    # JSON's types and no others: PyYAML would write a date or a set in a form of its own.
    yaml_representers: Final = {
        kind: write
        for kind, write in _Dumper.yaml_representers.items()
        if kind in {bool, int, float, list, tuple, dict, type(None)}
    }

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _write_string(writer: Any, text: str) -> Any:
    style = None
    if not text.replace("\n", "").isprintable():
        style = '"'
    elif "\n" in text:
        style = "|"
    elif not isinstance(plain_scalar(text), str) or text == "<<":
        style = '"'
    return writer.represent_scalar(STRING_TAG, text, style=style)


def _write_number(writer: Any, number: float) -> Any:
    if not math.isfinite(number):
        raise yaml.YAMLError(f"{number} is no number that JSON knows")
    return writer.represent_float(number)


def _write_map(writer: Any, fields: dict[Any, Any]) -> Any:
    for name in fields:
        if not isinstance(name, str):
            raise yaml.YAMLError(f"the name of a field is {name!r}, which is no string")
    return writer.represent_dict(fields)


def _refuse(writer: Any, value: object) -> Any:
    raise yaml.YAMLError(f"a {type(value).__name__} is no value of JSON")


_Writer.add_representer(None, _refuse)
_Writer.add_representer(str, _write_string)
_Writer.add_representer(float, _write_number)
_Writer.add_representer(dict, _write_map)


def to_yaml(resources: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> str:
    """Write one resource, or many as documents of one text that `kubectl apply -f -` takes.

    Fields keep the order in which they are given, but for apiVersion, kind and metadata, which come first: the same
    resources are the same text. There are no anchors and no line is folded. Raises ValueError for a value that is
    neither a JSON value nor a map or a list of those.
    """
    several = [resources] if isinstance(resources, Mapping) else list(resources)
    ordered = [
        {key: one[key] for key in (*_FIRST_FIELDS, *(key for key in one if key not in _FIRST_FIELDS)) if key in one}
        for one in several
    ]
    if not ordered:
        return ""
    try:
        text: str = yaml.dump_all(
            ordered,
            Dumper=_Writer,
            sort_keys=False,
            default_flow_style=False,
            allow_unicode=True,
            width=_WIDEST,
            explicit_start=len(ordered) > 1,
        )
    except yaml.YAMLError as error:
        raise ValueError(f"this cannot be written as YAML: {error}") from None
    except RecursionError:
        raise ValueError("this cannot be written as YAML: a value that contains itself") from None
    return text
