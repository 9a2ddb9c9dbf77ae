"""The mutual-TLS modes of a workload, with Istio's names and meaning (PeerAuthentication.MutualTLS.Mode)."""

from __future__ import annotations

from enum import Enum


class MTLSMode(Enum):
    """What the inbound side accepts."""

    STRICT = "STRICT"  # mutual TLS of the mesh only
    PERMISSIVE = "PERMISSIVE"  # mutual TLS, and plaintext as it came
    DISABLE = "DISABLE"  # plaintext only; the sidecar forwards bytes as they are
