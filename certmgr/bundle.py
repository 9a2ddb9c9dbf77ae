"""What an authority publishes: the roots, intermediates and revocation lists that peers judge each other by."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.serialization import Encoding

from certmgr.parts import Bundle
from certmgr.revocation import published_lists
from certmgr.state import AuthorityState
from certmgr.x509_files import pem_of
from mesh.anchors import anchors_of
from mesh.names import INTERMEDIATES_FILE, REVOCATION_FILE, ROOTS_FILE


def bundle_of(state: AuthorityState) -> Bundle:
    """Return what is to be published in this state: the same for the same state."""
    roots = tuple(one.root for one in state.generations)
    intermediates = tuple(one.certificate for generation in state.generations for one in generation.intermediates)
    files = {
        ROOTS_FILE: pem_of(roots),
        INTERMEDIATES_FILE: pem_of(intermediates),
        REVOCATION_FILE: b"".join(published_lists(state)),
    }
    generation = state.signer.name
    anchors = anchors_of(state.round, (one.public_bytes(Encoding.DER) for one in roots))
    return Bundle(files, anchors, _etag(anchors, generation, files), generation, state.round)


def _etag(anchors: str, generation: str, files: dict[str, bytes]) -> str:
    digest = hashlib.sha256(f"{anchors} {generation}".encode())
    for name in sorted(files):
        digest.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(files[name]).digest())
    return digest.hexdigest()
