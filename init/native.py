"""Tables of other meshes that nft itself made: no program of iptables lists or changes them.

Istio writes its rules so where it is told to (`nativeNftables`), into tables of the family inet. Without the program
nft nobody here can see them.
"""

from __future__ import annotations

import re
import shutil
from typing import Final

from init.backend import FilterRefused, run_program, search_path
from init.foreign import NativeTable, mesh_of_table

# A name with anything else in it is none of these, and would have to be quoted.
_TABLE: Final = re.compile(r"table ([a-z0-9]+) ([a-z0-9-]+)")


def read_tables() -> tuple[NativeTable, ...]:
    """Return the tables of other meshes; none where the kernel has no nft, or no program. Raises FilterRefused."""
    nft = _program()
    if nft is None:
        return ()
    try:
        text = run_program([nft, "list", "tables"])
    except FilterRefused as error:
        if error.absent:
            return ()
        raise
    listed = (NativeTable(*found.groups()) for line in text.splitlines() if (found := _TABLE.fullmatch(line.strip())))
    return tuple(table for table in listed if mesh_of_table(table.name))


def remove_tables() -> bool:
    """Delete the tables of other meshes, all in one transaction; return whether there was any. Raises FilterRefused."""
    nft, tables = _program(), read_tables()
    if nft is None or not tables:
        return False
    try:
        run_program([nft, "-f", "-"], "".join(f"delete {table}\n" for table in tables))
    except FilterRefused:
        if read_tables():
            raise
        # Another process was faster.
    return True


def _program() -> str | None:
    return shutil.which("nft", path=search_path())
