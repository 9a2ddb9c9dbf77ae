"""`qbitel ca` as its user meets it: run within this process, at whatever time the test says it is."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cli.ca.command import main
from mesh.errors import UserError

WEB = "spiffe://cluster.local/ns/shop/sa/web"
DB = "spiffe://cluster.local/ns/shop/sa/db"


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    output: str
    errors: str

    @property
    def data(self) -> Any:
        """What --json printed."""
        assert self.errors == ""
        return json.loads(self.output)

    @property
    def refusal(self) -> str:
        """The one line of a run that ended with exit code 2 and printed nothing else."""
        assert self.code == 2, self
        assert self.output == ""
        assert self.errors.startswith("qbitel ca")
        assert self.errors.endswith("\n")
        assert self.errors[:-1].isprintable()
        return self.errors


@dataclass
class Ca:
    """Runs commands; `now` goes on by a microsecond with each look at it, and further where a test says so."""

    capture: Callable[[], tuple[str, str]]
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime.now(datetime.UTC))

    def __call__(self, *arguments: str | Path) -> Outcome:
        self.capture()
        errors = ""
        try:
            code = main([str(one) for one in arguments], clock=self.clock)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        except UserError as error:  # as cli.main prints it
            code, errors = 2, f"qbitel ca: {error}\n"
        output, printed = self.capture()
        return Outcome(code, output, printed + errors)

    def clock(self) -> datetime.datetime:
        self.now += datetime.timedelta(microseconds=1)
        return self.now

    def later(self, **span: float) -> None:
        self.now += datetime.timedelta(**span)

    def good(self, *arguments: str | Path) -> Outcome:
        """A run that must succeed, without a word on stderr."""
        outcome = self(*arguments)
        assert (outcome.code, outcome.errors) == (0, ""), outcome
        return outcome

    def data(self, *arguments: str | Path) -> Any:
        return self.good(*arguments, "--json").data


@pytest.fixture
def ca(capsys: pytest.CaptureFixture[str]) -> Ca:
    def capture() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return Ca(capture)


@pytest.fixture
def root(tmp_path: Path, ca: Ca) -> Path:
    """The folder of a root alone."""
    ca.good("init", tmp_path / "root", "--root-only")
    return tmp_path / "root"


@pytest.fixture
def authority(tmp_path: Path, ca: Ca) -> Path:
    """The folder of an authority."""
    ca.good("init", tmp_path / "ca")
    return tmp_path / "ca"
