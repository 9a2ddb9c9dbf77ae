"""What `qbitel ca` answers with: lines for a person, or one JSON object for a program."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

# The certificate, or the plan, that was asked about is not good: verify's "no".
EXIT_NO: Final = 1
_LABEL_WIDTH: Final = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """Both forms of one answer, and the exit code that it means."""

    lines: Sequence[str]
    data: Mapping[str, Any] = field(default_factory=dict)
    code: int = 0

    def tell(self, options: argparse.Namespace) -> int:
        """Print the form that `options.json` asks for; return the exit code."""
        print(json.dumps(self.data, indent=2) if options.json else "\n".join(self.lines))
        return self.code


def row(label: str, text: object) -> str:
    """One line of a list of facts."""
    return f"  {label:<{_LABEL_WIDTH}} {text}"
