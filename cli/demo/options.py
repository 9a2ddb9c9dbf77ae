"""What the user asked for, and how it travels to the process that does it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `qbitel demo`, checked."""

    once: bool = False
    json: bool = False
    loopback: bool = False
    app: tuple[str, ...] = ()  # the user's own server as words; empty for the sample
    app_user: str | None = None
    port: int = 8080
    file_mib: int = 256
    keep_capture: str | None = None  # an absolute path

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Options:
        document = json.loads(text)
        return cls(**{**document, "app": tuple(document["app"])})
