"""One connection on its way to a peer: its place among the others, the endpoint that it uses, and what came of that."""

from __future__ import annotations

from typing import Final

from mesh.balancing import Endpoint as Member
from proxy.peers.group import Group
from proxy.relay import End, Outcome
from proxy.tunnels.ends import StreamReset
from proxy.tunnels.frames import ResetCode

# What the sidecar there says of its application; that it does not want us says nothing against the endpoint.
_FAULTS: Final = frozenset({ResetCode.CONNECT_FAILED, ResetCode.CONNECT_TIMEOUT, ResetCode.DRAINED})
# A tunnel that ends before the other side has accepted.
_BROKEN: Final = frozenset({End.RESET_BY_PEER, End.PEER_SILENT, End.TLS_ERROR})


class Passage:
    """From `enter` to `leave`, which is called once."""

    __slots__ = ("_began", "_group", "_is_waiting", "member")

    def __init__(self, group: Group) -> None:
        """Raises Refused where as many connections are open as may be."""
        group.enter()
        self._group = group
        self.member: Member | None = None
        self._began = 0.0
        self._is_waiting = False

    def uses(self, member: Member) -> None:
        """It goes to this endpoint, instead of the one before."""
        self._let_go()
        self.member = member
        self._began = self._group.now()
        self._is_waiting = True
        member.started()

    def failed(self, why: str) -> None:
        """No connection to the endpoint could be made."""
        if self.member is not None and self._is_waiting:
            self._is_waiting = False
            self._group.failed(self.member, self._group.now() - self._began, why)

    def succeeded(self) -> None:
        """The connection to the endpoint stands."""
        if self.member is not None and self._is_waiting:
            self._is_waiting = False
            self._group.succeeded(self.member, self._group.now() - self._began)

    def ended(self, outcome: Outcome) -> None:
        """A stream of a tunnel is over, and with it this."""
        if self._is_waiting:
            error = outcome.error
            if isinstance(error, StreamReset) and error.code in _FAULTS:
                self.failed(f"the sidecar there says {error}")
            elif outcome.end in _BROKEN and not isinstance(error, StreamReset):
                self.failed("its tunnel broke")
        self.leave()

    def leave(self) -> None:
        """The connection is over."""
        self._let_go()
        self._group.leave()

    def _let_go(self) -> None:
        if self.member is not None:
            self.member.finished()
            self.member = None
            self._is_waiting = False
