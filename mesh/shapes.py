"""Shapes that resources of several kinds have in common: addresses, names of hosts, who may see a resource."""

from __future__ import annotations

from typing import Final

from mesh.addresses import address_block
from mesh.documents import Path
from mesh.reading import Report, both, list_of, shown, text


def address(value: str, path: Path, report: Report) -> None:
    """A text that is an address or a block of them."""
    try:
        address_block(value)
    except ValueError as error:
        report.error(path, str(error))


ADDRESS: Final = both(text(least=1), address)


def _host(value: str, path: Path, report: Report) -> None:
    name = value.removeprefix("*.") if value != "*" else "x"
    if not all(part and len(part) <= 63 and _is_label(part) for part in name.removesuffix(".").split(".")):
        report.error(
            path, f"{shown(value)} is no name of a host, as in web, web.shop.svc.cluster.local or *.example.com"
        )


def _is_label(part: str) -> bool:
    return part.isascii() and part.replace("-", "").replace("_", "").isalnum() and "-" not in (part[0], part[-1])


HOST: Final = both(text(least=1, most=255), _host)
EXPORT_TO: Final = list_of(
    text(pattern=r"[.*~]|[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", wanted="namespace, nor one of . and *")
)
