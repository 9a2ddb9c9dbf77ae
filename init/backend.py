"""The programs that hold rules: which are there, which of nft and legacy to use, and running them.

Nothing goes through a shell, and the environment of the programs is ours: messages in English, whatever the
locale.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from init.config import BackendChoice
from init.rules import Family
from init.state import State, parse_save
from mesh.errors import UserError

# Another iptables may hold the lock; a CNI's change takes well under a second, so ten is patience enough.
LOCK_WAIT: Final = 10  # seconds
# More than the lock's: after that something hangs, and a pod that says so is better than one that waits.
RUN_LIMIT: Final = 30  # seconds
# Minimal images leave the sbin folders out of PATH.
_SEARCH_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_CAP_NET_ADMIN: Final = 12  # linux/capability.h
_PERMISSION_WORDS: Final = ("Permission denied", "Operation not permitted", "you must be root")
# nft without nf_tables or IPv6; legacy without its modules, and with modules that have no such table.
_ABSENCE_WORDS: Final = ("not supported", "insmod", "does not exist")
_GRANT: Final = "run it as root, or add NET_ADMIN and NET_RAW to the container's securityContext.capabilities"


class Kind(Enum):
    """The kernel's two packet filters that iptables programs speak to."""

    NFT = "nft"
    LEGACY = "legacy"


class FilterRefused(UserError):
    """A program of iptables ended with an error; the message has its words on one line."""

    @property
    def absent(self) -> bool:
        """Whether these are the words for what this kernel does not have: then no rule can stand there either."""
        return any(words in str(self) for words in _ABSENCE_WORDS)


@dataclass(frozen=True, slots=True)
class PacketFilter:
    """One back end in one family: the programs to list, save and restore, as absolute paths."""

    kind: Kind
    family: Family
    lister: str
    saver: str
    restorer: str

    def read(self) -> State:
        """Return every rule that there is. Raises FilterRefused."""
        return parse_save(run_program([self.saver]))

    def restore(self, text: str) -> None:
        """Apply `text`, leaving alone what it does not mention. Raises FilterRefused."""
        run_program([self.restorer, "-w", str(LOCK_WAIT), "--noflush"], text)

    def refusal(self) -> FilterRefused | None:
        """Return why the kernel does not offer the nat table here; None when it does."""
        try:
            run_program([self.lister, "-w", str(LOCK_WAIT), "-t", "nat", "-S", "OUTPUT"])
        except FilterRefused as error:
            return error
        return None


def require_permission(status: Path = Path("/proc/self/status")) -> None:
    """Raise UserError unless this process may change the packet filter (CAP_NET_ADMIN)."""
    effective = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    if not int(effective.split()[1], 16) >> _CAP_NET_ADMIN & 1:
        raise UserError(f"no permission to read or change the packet filter: {_GRANT}")


def find_filters(path: str | None = None) -> tuple[PacketFilter, ...]:
    """Return the back ends whose programs are installed, nft before legacy, IPv4 before IPv6.

    `path` is where to look, in the form of PATH; by default PATH and the sbin folders.
    """
    where = path if path is not None else search_path()
    found = (_find(kind, family, where) for kind in Kind for family in Family)
    return tuple(filter_ for filter_ in found if filter_ is not None)


def choose_kind(choice: BackendChoice, filters: Sequence[PacketFilter], states: Mapping[PacketFilter, State]) -> Kind:
    """Return the back end to use: the one asked for, else the one in use, else the one that the kernel has.

    `states` has what could be read. In use means holding rules of ours, or where there are none, any rules:
    two back ends that both rewrite addresses get in each other's way. Raises UserError where nothing fits.
    """
    available = [filter_ for filter_ in filters if filter_.family is Family.V4]
    if choice is not BackendChoice.AUTO:
        available = [filter_ for filter_ in available if filter_.kind.value == choice.value]
    if not available:
        wanted = "iptables" if choice is BackendChoice.AUTO else f"iptables-{choice.value}"
        raise UserError(f"{wanted} is not installed: install the iptables package, or use the sidecar's own image")
    held = {filter_.kind: [states[other] for other in states if other.kind is filter_.kind] for filter_ in available}
    with_ours = (kind for kind, found in held.items() if any(state.holds_ours for state in found))
    with_any = (kind for kind, found in held.items() if any(state.holds_rules for state in found))
    for kind in (*with_ours, *with_any):
        return kind
    refusals = []
    for filter_ in available:
        refusal = filter_.refusal()
        if refusal is None:
            return filter_.kind
        refusals.append(str(refusal))
    raise UserError(f"no packet filter can be used here: {'; '.join(refusals)}")


def _find(kind: Kind, family: Family, path: str) -> PacketFilter | None:
    name = "iptables" if family is Family.V4 else "ip6tables"
    for prefix in (f"{name}-{kind.value}", name):
        programs = [shutil.which(prefix + suffix, path=path) for suffix in ("", "-save", "-restore")]
        lister, saver, restorer = programs
        if lister and saver and restorer and (prefix != name or _kind_of(lister) is kind):
            return PacketFilter(kind, family, lister, saver, restorer)
    return None


def _kind_of(program: str) -> Kind:
    # "iptables v1.8.9 (nf_tables)", "iptables v1.8.9 (legacy)"; before 1.8 there was legacy only, and no
    # bracket.
    return Kind.NFT if "nf_tables" in run_program([program, "--version"]) else Kind.LEGACY


def search_path() -> str:
    """Return where programs are looked for, in the form of PATH: there, and in the sbin folders."""
    return f"{os.environ.get('PATH', '')}:{_SEARCH_PATH}"


def run_program(command: list[str], text: str | None = None) -> str:
    """Run `command` with `text` as its input and return what it printed. Raises FilterRefused."""
    program = Path(command[0]).name
    try:
        ended = subprocess.run(  # noqa: S603  # absolute paths and our own arguments, no shell
            command,
            input=text or "",
            capture_output=True,
            text=True,
            errors="replace",
            env=_environment(),
            timeout=RUN_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FilterRefused(f"{program} did not end within {RUN_LIMIT} s; see what else changes the rules") from None
    except OSError as error:
        raise FilterRefused(f"{program} cannot be run: {error.strerror}; reinstall the iptables package") from error
    if ended.returncode != 0:
        raise FilterRefused(_explanation(program, ended.returncode, ended.stderr))
    return ended.stdout


def _explanation(program: str, code: int, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not line.startswith("# Warning")]
    words = "; ".join(lines) or f"exit code {code} without a word"
    advice = f" ({_GRANT})" if any(permission in words for permission in _PERMISSION_WORDS) else ""
    return f"{program}: {words}{advice}"


def _environment() -> dict[str, str]:
    environment = {"PATH": _SEARCH_PATH, "LC_ALL": "C"}
    if not os.access("/run", os.W_OK):
        # iptables-legacy wants a lock file in /run, which a container with a read-only root does not have.
        # The lock is per file system anyway: no other container of the pod would see it.
        environment["XTABLES_LOCKFILE"] = os.devnull
    return environment
