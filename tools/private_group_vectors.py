"""Writes the test vectors of the private group X25519MLKEM1024 (docs/adr/0007-private-group.md).

    python tools/private_group_vectors.py > tests/pqtls/vectors/x25519mlkem1024.json

Encapsulation draws its own randomness, so a new run gives new vectors; each is complete in itself: from the client's
secret inputs, everything else can be computed or checked.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys

from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from pqtls.key_schedule import EarlySecret
from pqtls.provider_cryptography import PROVIDER
from pqtls.suites import TLS_AES_256_GCM_SHA384


def vector() -> dict[str, str]:
    """One key exchange and the handshake secrets that it gives under a made-up transcript."""
    seed, scalar = secrets.token_bytes(64), secrets.token_bytes(32)
    kem = mlkem.MLKEM1024PrivateKey.from_seed_bytes(seed)
    curve = x25519.X25519PrivateKey.from_private_bytes(scalar)
    client_share = kem.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    server_curve = x25519.X25519PrivateKey.generate()
    kem_secret, ciphertext = kem.public_key().encapsulate()
    shared = kem_secret + server_curve.exchange(curve.public_key())
    transcript_hash = hashlib.sha384(secrets.token_bytes(32)).digest()
    derived = EarlySecret.without_psk(TLS_AES_256_GCM_SHA384, PROVIDER).handshake(shared, transcript_hash)
    return {
        "ml_kem_1024_seed_d_z": seed.hex(),
        "x25519_private_key": scalar.hex(),
        "client_key_exchange": client_share.hex(),
        "server_key_exchange": (ciphertext + server_curve.public_key().public_bytes_raw()).hex(),
        "shared_secret": shared.hex(),
        "client_hello_to_server_hello_sha384": transcript_hash.hex(),
        "client_handshake_traffic_secret": derived.client.secret.hex(),
        "server_handshake_traffic_secret": derived.server.secret.hex(),
    }


if __name__ == "__main__":
    document = {
        "group": "X25519MLKEM1024",
        "code_point": "0xfec4",
        "cipher_suite": "TLS_AES_256_GCM_SHA384",
        "vectors": [vector() for _ in range(8)],
    }
    json.dump(document, sys.stdout, indent=1)
    print()
