"""docs/policy.md: every file in it is written, every command is run, and every answer is compared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cli.policy.conftest import Policy

DOCUMENT: Final = Path(__file__).parents[3] / "docs" / "policy.md"


@dataclass(frozen=True, slots=True)
class Step:
    """A file to write (`name`, `text`), or a command and its output."""

    name: str
    text: str
    is_file: bool


def steps() -> Iterator[Step]:
    text = DOCUMENT.read_text(encoding="utf-8")
    for match in re.finditer(r"^(?:`([^`\n]+)`\n\n)?```(yaml|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        name, language, body = match.groups()
        if language == "yaml":
            yield Step(name, body, is_file=True)
        for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
            yield Step(command, output, is_file=False)


def test_what_the_documentation_shows_is_what_happens(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = 0
    for step in steps():
        if step.is_file:
            Path(step.name).parent.mkdir(exist_ok=True)
            Path(step.name).write_text(step.text)
            continue
        words = shlex.split(step.name)
        target = words.pop() if words[-2:-1] == [">"] else None
        program, group, *arguments = words[:-1] if target else words
        assert (program, group) == ("qbitel", "policy")
        outcome = policy(*arguments)
        assert outcome.errors == "", step.name
        if target:
            Path(target).parent.mkdir(exist_ok=True)
            Path(target).write_text(outcome.output)
        else:
            assert outcome.output.strip() == step.text.strip(), step.name
        ran += 1
    assert ran >= 15
