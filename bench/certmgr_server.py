"""The authority that is measured: the real one over a folder, with a verifier that takes any token for a name.

What TokenReview itself costs is the API server's; its answers are cached. Run as a process of its own, which prints the
port of its API and the folder that its roots are in.
"""

from __future__ import annotations

import datetime
import socket
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from certmgr import server
from certmgr.audit import file_journal
from certmgr.folder_store import FolderStore
from certmgr.founding import new_state
from certmgr.parts import Parts
from certmgr.proofs import Method, ProvenIdentity
from certmgr.server import Listening
from certmgr.state_document import encode_state
from certmgr.store import AUTHORITY_DOCUMENT
from mesh import names
from mesh.spiffe import SpiffeId
from pqtls import PROFILES
from proxy import loop

_TRUST_DOMAIN = "cluster.local"


class AnyToken:
    """A token is the name of a service account."""

    async def identify(self, token: str) -> ProvenIdentity:
        """Whoever it says."""
        spiffe_id = SpiffeId.for_service_account("bench", token, _TRUST_DOMAIN)
        return ProvenIdentity(spiffe_id=spiffe_id, method=Method.TOKEN, instance=token)


def utc_now() -> datetime.datetime:
    """The present."""
    return datetime.datetime.now(datetime.UTC)


async def main(folder: Path) -> int:
    """Make an authority in `folder`, and serve until SIGTERM."""
    store = FolderStore(folder)
    state = new_state("CN=Bench,O=Example", _TRUST_DOMAIN, utc_now())
    await store.save(AUTHORITY_DOCUMENT, encode_state(state), None)
    (folder / names.ROOTS_FILE).write_bytes(state.current.root.public_bytes(Encoding.PEM))
    parts = Parts(store=store, journal=file_journal(folder / "audit.log"), replica="bench", tokens=AnyToken())
    api, metrics, health = (socket.create_server(("127.0.0.1", 0), backlog=1024) for _ in range(3))
    print(api.getsockname()[1], flush=True)
    return await server.run(
        parts, Listening([api], [metrics], [health]), profiles=(PROFILES["qbitel"],), drain_seconds=10, now=utc_now
    )


if __name__ == "__main__":
    sys.exit(loop.run(main(Path(sys.argv[1]))))
