"""The second provider: ML-KEM and ML-DSA from liboqs, everything else from the first.

This file is *given* the module `oqs` of liboqs-python and never imports it: at import, liboqs-python clones and builds
the library when it is missing, so whoever imports it must first make sure that it is there (proxy/providers.py).
"""

from __future__ import annotations

import ctypes
import threading
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import mldsa

from pqtls.errors import MisuseError
from pqtls.provider import Agreement, Answer, InvalidShare, PrivateShare, SigningKey
from pqtls.provider_cryptography import CryptographyProvider
from pqtls.signatures import MLDSA87, SignatureScheme

_SIGNATURE: Final = "ML-DSA-87"
_KEMS: Final = {Agreement.ML_KEM_1024: "ML-KEM-1024", Agreement.ML_KEM_768: "ML-KEM-768"}
_SEED_SIZE: Final = 32  # FIPS 204 §5.1: xi
_RANDOM_BYTES: Final = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)


class UnusableLibraryError(Exception):
    """A liboqs is there, but it cannot do what the mesh needs. The message says what is missing."""


class _Kem:
    """One algorithm of liboqs for any number of shares: to make an object of its kind costs a fourth of its work.

    liboqs-python has an object hold the secret key that it works with, so one works for one caller at a time.
    """

    def __init__(self, oqs: Any, algorithm: Agreement, turn: threading.Lock) -> None:
        self._kem = oqs.KeyEncapsulation(_KEMS[algorithm])
        self._cleanse = oqs.native().OQS_MEM_cleanse
        self._algorithm = algorithm
        self._turn = turn

    def generate(self) -> _KemShare:
        """A fresh key pair."""
        with self._turn:
            public: bytes = self._kem.generate_keypair()
            return _KemShare(self, public, self._kem.secret_key)

    def encapsulate(self, public: bytes) -> Answer:
        """A fresh secret for who holds the key to `public`, which liboqs checks (FIPS 203 §7.2)."""
        # liboqs-python pads what is too short.
        if len(public) != self._algorithm.client_share_size:
            raise InvalidShare(
                f"an {self._algorithm.label} key has {self._algorithm.client_share_size} bytes, not {len(public)}"
            )
        try:
            with self._turn:
                return Answer(*self._kem.encap_secret(public))
        except RuntimeError:
            raise InvalidShare(f"the {self._algorithm.label} key fails the check of FIPS 203 section 7.2") from None

    def decapsulate(self, secret_key: Any, ciphertext: bytes) -> bytes:
        """The secret in `ciphertext`."""
        # Implicit rejection would hide what the padding of liboqs-python makes of a short one.
        if len(ciphertext) != self._algorithm.server_share_size:
            raise InvalidShare(f"the ciphertext has {len(ciphertext)} bytes, not {self._algorithm.server_share_size}")
        try:
            with self._turn:
                self._kem.secret_key = secret_key
                secret: bytes = self._kem.decap_secret(ciphertext)
        except RuntimeError as error:
            raise InvalidShare(str(error)) from None
        return secret

    def wipe(self, secret_key: Any) -> None:
        """Overwrite a secret key that is of no use any more."""
        self._cleanse(secret_key, len(secret_key))


@dataclass(slots=True)
class _KemShare:
    """The initiator's half. Its secret key is wiped once it was used, or with a handshake that came to nothing."""

    kem: _Kem = field(repr=False)
    public: bytes
    secret_key: Any = field(repr=False)

    def finish(self, answer: bytes) -> bytes:
        """Decapsulate, once."""
        if self.secret_key is None:
            raise MisuseError("a key share is used once")
        try:
            return self.kem.decapsulate(self.secret_key, answer)
        finally:
            self._wipe()

    def __del__(self) -> None:
        if self.secret_key is not None:
            self._wipe()

    def _wipe(self) -> None:
        self.kem.wipe(self.secret_key)
        self.secret_key = None


class LiboqsProvider(CryptographyProvider):
    """ML-KEM-768, ML-KEM-1024 and ML-DSA-87 from liboqs."""

    name = "liboqs"

    def __init__(self, oqs: Any) -> None:
        missing = [kem for kem in _KEMS.values() if not oqs.is_kem_enabled(kem)]
        missing += [] if oqs.is_sig_enabled(_SIGNATURE) else [_SIGNATURE]
        if missing:
            raise UnusableLibraryError(f"this liboqs was built without {', '.join(missing)}")
        self._oqs = oqs
        # liboqs's source of randomness is one for the whole process, and _expand borrows it for a moment: nobody
        # else may draw from it then.
        self._randomness = threading.Lock()
        self._kems = {algorithm: _Kem(oqs, algorithm, self._randomness) for algorithm in _KEMS}
        self._signers: list[tuple[mldsa.MLDSA87PrivateKey, Any]] = []
        self._verifier = oqs.Signature(_SIGNATURE)

    @property
    def library_version(self) -> str:
        """The version of the shared library."""
        version: str = self._oqs.oqs_version()
        return version

    def generate_share(self, algorithm: Agreement) -> PrivateShare:
        """Make the initiator's half."""
        kem = self._kems.get(algorithm)
        return super().generate_share(algorithm) if kem is None else kem.generate()

    def answer_share(self, algorithm: Agreement, share: bytes) -> Answer:
        """Make the responder's half; liboqs checks the encapsulation key (FIPS 203 §7.2)."""
        kem = self._kems.get(algorithm)
        return super().answer_share(algorithm, share) if kem is None else kem.encapsulate(share)

    def sign(self, key: SigningKey, scheme: SignatureScheme, message: bytes) -> bytes:
        """Sign with liboqs where the scheme is ML-DSA-87."""
        if scheme is not MLDSA87:
            return super().sign(key, scheme, message)
        if not isinstance(key, mldsa.MLDSA87PrivateKey):
            raise MisuseError(f"a private key of another type cannot sign with {scheme.name}")
        signer = self._signer(key)
        with self._randomness:
            signature: bytes = signer.sign(message)
        return signature

    def verify(self, public_key: object, scheme: SignatureScheme, signature: bytes, message: bytes) -> bool:
        """Verify with liboqs where the scheme is ML-DSA-87."""
        if scheme is not MLDSA87 or not isinstance(public_key, mldsa.MLDSA87PublicKey):
            return super().verify(public_key, scheme, signature, message)
        # liboqs-python pads what is too short, so the length (FIPS 204, table 2) is checked here.
        if len(signature) != self._verifier.length_signature:
            return False
        holds: bool = self._verifier.verify(message, signature, public_key.public_bytes_raw())
        return holds

    def _signer(self, key: mldsa.MLDSA87PrivateKey) -> Any:
        """The liboqs object that signs for `key`, made once: it wants the expanded key, and files hold the seed."""
        for held, signer in self._signers:
            if held is key:
                return signer
        # A process has one or two credentials at a time; what was replaced is of no use any more.
        if len(self._signers) >= 4:
            _, replaced = self._signers.pop(0)
            replaced.free()
        signer = self._expand(key.private_bytes_raw(), key.public_key().public_bytes_raw())
        self._signers.append((key, signer))
        return signer

    def _expand(self, seed: bytes, public: bytes) -> Any:
        """ML-DSA.KeyGen_internal (FIPS 204 §6.1): let liboqs make a key pair while its randomness is the seed.

        OQS_randombytes_custom_algorithm is liboqs's documented way to supply randomness. That the right public key
        comes out shows that the seed, and nothing but the seed, went in.
        """
        requests: list[int] = []

        def supply_seed(target: Any, size: int) -> None:
            requests.append(size)
            ctypes.memmove(target, seed, min(size, _SEED_SIZE))

        callback = _RANDOM_BYTES(supply_seed)
        native = self._oqs.native()
        signer = self._oqs.Signature(_SIGNATURE)
        with self._randomness:
            native.OQS_randombytes_custom_algorithm(callback)
            try:
                made: bytes = signer.generate_keypair()
            finally:
                restored = native.OQS_randombytes_switch_algorithm(b"system")
        if restored != 0:
            raise UnusableLibraryError("liboqs did not go back to the system's randomness")
        if requests != [_SEED_SIZE] or made != public:
            signer.free()
            raise UnusableLibraryError("this liboqs does not expand ML-DSA-87 seeds as FIPS 204 says")
        return signer
