"""Where a route of a VirtualService leads, whatever it carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mesh.building import checks
from mesh.building.parts import Part


@dataclass(frozen=True, slots=True)
class Destination(Part):
    """A host, of it a subset that its DestinationRule names, its port, and a share of what is sent.

    Raises ValueError, which names the argument.
    """

    host: str
    subset: str | None = None
    port: int | None = None
    weight: int | None = None

    def _build(self) -> dict[str, Any]:
        where: dict[str, Any] = {"host": checks.host("host", self.host, wildcard=False)}
        if self.subset is not None:
            where["subset"] = checks.label_name("subset", self.subset)
        if self.port is not None:
            where["port"] = {"number": checks.port("port", self.port)}
        found: dict[str, Any] = {"destination": where}
        if self.weight is not None:
            found["weight"] = checks.whole_number("weight", self.weight, 0, checks.MAX_INT32)
        return found


def shares(route: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The destinations of a route, of which some must have a share where there are several."""
    if len(route) > 1 and not any(one.get("weight") for one in route):
        raise ValueError("destinations: several, and none has a weight; give each its share")
    return route
