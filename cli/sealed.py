"""Opens what certmgr sealed to a workload, for the sidecar: no program imports another, so it gets the function."""

from __future__ import annotations

from mesh.errors import UserError
from mesh.spiffe import InvalidSpiffeId, SpiffeId


def open_sealed_key(kem_key: bytes, envelope: bytes, identity: str, label: str) -> bytes:
    """Return what was sealed to the ML-KEM-1024 key in `kem_key` (PEM) as `label` of `identity`; or raise UserError."""
    # Few sidecars have a sealed key; the others do without certmgr.
    from certmgr.kem import load_kem_private_key  # noqa: PLC0415
    from certmgr.sealing import open_sealed  # noqa: PLC0415

    try:
        recipient = SpiffeId.parse(identity)
    except InvalidSpiffeId as error:
        raise UserError(f"the certificate names no SPIFFE identity that a key could be sealed to: {error}") from None
    return open_sealed(load_kem_private_key(kem_key), envelope, recipient, label=label)
