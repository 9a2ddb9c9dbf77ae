"""`qbitel policy` as its user meets it: run within this process, on real files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.policy.command import main
from mesh.errors import UserError


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    output: str
    errors: str

    @property
    def refusal(self) -> str:
        """The one line of a run that ended with exit code 2 and printed nothing else."""
        assert self.code == 2, self
        assert self.output == ""
        assert self.errors.startswith("qbitel policy")
        assert self.errors[:-1].isprintable()
        return self.errors[:-1]


@dataclass
class Policy:
    capture: Callable[[], tuple[str, str]]

    def __call__(self, *arguments: str | Path) -> Outcome:
        self.capture()
        errors = ""
        try:
            code = main([str(one) for one in arguments])
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        except UserError as error:  # as cli.main prints it
            code, errors = 2, f"qbitel policy: {error}\n"
        output, printed = self.capture()
        return Outcome(code, output, printed + errors)

    def says(self, code: int, *arguments: str | Path) -> str:
        """What a run that ends with `code` prints, with nothing on stderr."""
        outcome = self(*arguments)
        assert (outcome.code, outcome.errors) == (code, ""), outcome
        return outcome.output

    def data(self, code: int, *arguments: str | Path) -> Any:
        return json.loads(self.says(code, *arguments, "--json"))


@pytest.fixture
def policy(capsys: pytest.CaptureFixture[str]) -> Policy:
    def capture() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return Policy(capture)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of policies, which is there once something is written."""

    path: Path

    def write(self, name: str, *texts: str) -> Path:
        self.path.mkdir(exist_ok=True)
        file = self.path / name
        file.write_text("---\n".join(texts))
        return file


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "policies")
