"""On what grounds an open connection was let in, kept with it: so that it can be asked about again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mesh.facts import Facts
    from proxy.policy.gate import Gate
    from proxy.policy.limits import Place
    from proxy.policy.rules import Rules


class Standing:
    """Of one connection, from when it is let in until `leave()`."""

    __slots__ = ("_gate", "facts", "is_secure", "place", "rules")

    def __init__(self, gate: Gate, facts: Facts, place: Place, rules: Rules | None, *, is_secure: bool) -> None:
        self._gate = gate
        self.facts = facts
        self.place = place
        self.rules = rules  # under which it was last judged
        self.is_secure = is_secure

    def leave(self) -> None:
        """The connection is over. To be called once."""
        self._gate.left(self)
