"""What came of a question to the application."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status for the kubelet (200 to 599), and a word for whoever reads it.

    `location`: an address of another host than the pod, to which the application redirects; the kubelet decides.
    """

    status: int
    word: str
    location: str = ""


class NoAnswer(Exception):
    """The application gave none. The message says why, in a line."""
