"""What of a pod's traffic is captured, in the words of its annotations; whoever renders the rules checks them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias

from mesh import names


@dataclass(frozen=True, slots=True)
class Interception:
    """Lists as `qbitel init` takes them: commas between entries, `*` for all of them, "" for none."""

    include_inbound_ports: str = "*"
    exclude_inbound_ports: str = ""
    include_outbound_ports: str = ""
    exclude_outbound_ports: str = ""
    include_outbound_cidrs: str = "*"
    exclude_outbound_cidrs: str = ""
    exclude_interfaces: str = ""
    exclude_uids: str = ""
    outbound_port: int = names.OUTBOUND_PORT
    tproxy: bool = False  # inbound by TPROXY, so that the application sees its client's address


# The shell script that the init container runs. Raises UserError, whose message begins with the annotation's name
# (`annotation_of`), for a list that cannot be read.
ScriptRenderer: TypeAlias = Callable[[Interception], str]

# The fields that a pod sets by an annotation of their name.
FROM_ANNOTATIONS = tuple(
    one.name.replace("_", "-") for one in fields(Interception) if one.name not in ("outbound_port", "tproxy")
)


def annotation_of(field: str) -> str:
    """The annotation that sets `field` of an Interception."""
    return names.ANNOTATION_PREFIX + field.replace("_", "-")
