"""How many streams each peer has here, so that one of them cannot take every place there is for connections."""

from __future__ import annotations


class Shares:
    """Of one process. A stream costs its peer forty bytes: none may have `most`, which leaves some to others."""

    __slots__ = ("_most", "_taken")

    def __init__(self, max_connections: int) -> None:
        """`max_connections` of all peers together; each may have three quarters of them."""
        self._most = max(1, max_connections * 3 // 4)
        self._taken: dict[str, int] = {}

    def take(self, identity: str) -> bool:
        """Take a place for a stream of `identity`; False where it has all that it may have."""
        taken = self._taken.get(identity, 0)
        if taken >= self._most:
            return False
        self._taken[identity] = taken + 1
        return True

    def give_back(self, identity: str) -> None:
        """One of its streams is over, or came to nothing."""
        left = self._taken[identity] - 1
        if left:
            self._taken[identity] = left
        else:
            del self._taken[identity]
