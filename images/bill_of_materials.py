"""Writes what an image is made of, as CycloneDX 1.6: `sbom.json`, its packages; `cbom.json`, its cryptography.

    bill_of_materials.py IMAGE ENVIRONMENT FOLDER

Run inside the image while it is built: packages are those that are installed there, Python's and Debian's, and the
cryptography is read from the very tables that decide what is negotiated.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.crypto import (
    AlgorithmProperties,
    CryptoAssetType,
    CryptoFunction,
    CryptoMode,
    CryptoPrimitive,
    CryptoProperties,
    ProtocolProperties,
    ProtocolPropertiesCipherSuite,
    ProtocolPropertiesType,
)
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

# Which part of a key exchange or a signature is what, and the level of security that its standard gives it: FIPS 203
# table 2, FIPS 204 table 1 (categories 3 and 5); none against quantum computers for what is classical.
_ALGORITHMS: Final = {
    "ML-KEM-1024": (CryptoPrimitive.KEM, 256, 5, "2.16.840.1.101.3.4.4.3"),
    "ML-KEM-768": (CryptoPrimitive.KEM, 192, 3, "2.16.840.1.101.3.4.4.2"),
    "X25519": (CryptoPrimitive.KEY_AGREE, 128, 0, "1.3.101.110"),
    "P-384": (CryptoPrimitive.KEY_AGREE, 192, 0, "1.3.132.0.34"),
    "ML-DSA-87": (CryptoPrimitive.SIGNATURE, 256, 5, "2.16.840.1.101.3.4.3.19"),
    "ECDSA-P-384": (CryptoPrimitive.SIGNATURE, 192, 0, "1.2.840.10045.4.3.3"),
    "ECDSA-P-256": (CryptoPrimitive.SIGNATURE, 128, 0, "1.2.840.10045.4.3.2"),
    "AES-256-GCM": (CryptoPrimitive.AE, 256, 5, "2.16.840.1.101.3.4.1.46"),
    "AES-128-GCM": (CryptoPrimitive.AE, 128, 1, "2.16.840.1.101.3.4.1.6"),
    "ChaCha20-Poly1305": (CryptoPrimitive.AE, 256, 5, "1.2.840.113549.1.9.16.3.18"),
    "SHA-384": (CryptoPrimitive.HASH, 192, 4, "2.16.840.1.101.3.4.2.2"),
    "SHA-256": (CryptoPrimitive.HASH, 128, 2, "2.16.840.1.101.3.4.2.1"),
    "HKDF": (CryptoPrimitive.KDF, 256, 5, None),
}
_FUNCTIONS: Final = {
    CryptoPrimitive.KEM: (CryptoFunction.KEYGEN, CryptoFunction.ENCAPSULATE, CryptoFunction.DECAPSULATE),
    CryptoPrimitive.KEY_AGREE: (CryptoFunction.KEYGEN, CryptoFunction.KEYDERIVE),
    CryptoPrimitive.SIGNATURE: (CryptoFunction.KEYGEN, CryptoFunction.SIGN, CryptoFunction.VERIFY),
    CryptoPrimitive.AE: (CryptoFunction.ENCRYPT, CryptoFunction.DECRYPT, CryptoFunction.TAG),
    CryptoPrimitive.HASH: (CryptoFunction.DIGEST,),
    CryptoPrimitive.KDF: (CryptoFunction.KEYDERIVE,),
}


def main() -> None:
    """Write both bills."""
    image, environment, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    (packages,) = environment.glob("lib/python3.*/site-packages")
    sys.path.append(str(packages))
    folder.mkdir(parents=True, exist_ok=True)
    distributions = list(importlib.metadata.distributions(path=[str(packages)]))
    (ours,) = (one for one in distributions if one.name == "qbitel-mesh")
    subject = Component(name=f"qbitel/{image}", version=ours.version, type=ComponentType.CONTAINER)
    write(folder / "sbom.json", subject, [*map(python_package, distributions), *debian_packages()])
    write(folder / "cbom.json", subject, cryptography())


def write(path: Path, subject: Component, components: Iterable[Component]) -> None:
    """One bill, of `subject`."""
    bom = Bom(components=components)
    bom.metadata.component = subject
    path.write_text(JsonV1Dot6(bom).output_as_string(indent=1))


def python_package(distribution: importlib.metadata.Distribution) -> Component:
    """A distribution of the environment."""
    name, version = distribution.name, distribution.version
    return Component(
        name=name,
        version=version,
        type=ComponentType.LIBRARY,
        purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
        bom_ref=f"pypi:{name}@{version}",
    )


def debian_packages() -> list[Component]:
    """What dpkg says is installed."""
    listed = subprocess.run(
        ["/usr/bin/dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\\n"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = []
    for line in listed.splitlines():
        name, version, architecture = line.split()
        purl = PackageURL("deb", "debian", name, version, qualifiers={"arch": architecture})
        found.append(
            Component(
                name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=f"deb:{name}@{version}"
            )
        )
    return found


def cryptography() -> list[Component]:
    """The algorithms, and each profile as a protocol that uses them."""
    from pqtls.profiles import PROFILES  # noqa: PLC0415  # of the environment that is described

    found = {name: algorithm(name) for name in ("HKDF",)}
    protocols = []
    for profile in PROFILES.values():
        names = ["HKDF"]
        for group in profile.groups:
            names += [_AGREEMENTS[part.name] for part in group.parts]
        names += [_signature(scheme.key_type) for scheme in profile.signature_schemes]
        for suite in profile.cipher_suites:
            names += [_aead(suite.aead, suite.key_length), suite.hash_name.upper().replace("SHA", "SHA-")]
        for name in names:
            found.setdefault(name, algorithm(name))
        protocols.append(protocol(profile, dict.fromkeys(names)))
    return [*found.values(), *protocols]


_AGREEMENTS: Final = {
    "ML_KEM_1024": "ML-KEM-1024",
    "ML_KEM_768": "ML-KEM-768",
    "X25519": "X25519",
    "SECP384R1": "P-384",
}


def _signature(key_type: str) -> str:
    return key_type if key_type.startswith("ML-DSA") else f"ECDSA-{key_type}"


def _aead(name: str, key_length: int) -> str:
    return f"AES-{key_length * 8}-GCM" if name == "AES-GCM" else name


def algorithm(name: str) -> Component:
    """One algorithm."""
    primitive, classical, quantum, oid = _ALGORITHMS[name]
    return Component(
        name=name,
        type=ComponentType.CRYPTOGRAPHIC_ASSET,
        bom_ref=f"crypto:{name}",
        crypto_properties=CryptoProperties(
            asset_type=CryptoAssetType.ALGORITHM,
            algorithm_properties=AlgorithmProperties(
                primitive=primitive,
                mode=CryptoMode.GCM if name.endswith("GCM") else None,
                crypto_functions=_FUNCTIONS[primitive],
                classical_security_level=classical,
                nist_quantum_security_level=quantum,
            ),
            oid=oid,
        ),
    )


def protocol(profile: object, names: Iterable[str]) -> Component:
    """A profile: TLS 1.3, its cipher suites and all that they rest on."""
    from cyclonedx.model.bom_ref import BomRef  # noqa: PLC0415

    references = [BomRef(f"crypto:{name}") for name in names]
    return Component(
        name=f"TLS 1.3, profile {profile.name}",  # type: ignore[attr-defined]
        type=ComponentType.CRYPTOGRAPHIC_ASSET,
        bom_ref=f"profile:{profile.name}",  # type: ignore[attr-defined]
        crypto_properties=CryptoProperties(
            asset_type=CryptoAssetType.PROTOCOL,
            protocol_properties=ProtocolProperties(
                type=ProtocolPropertiesType.TLS,
                version="1.3",
                cipher_suites=[
                    ProtocolPropertiesCipherSuite(
                        name=suite.name,
                        identifiers=[f"0x{suite.code_point >> 8:02X}", f"0x{suite.code_point & 255:02X}"],
                    )
                    for suite in profile.cipher_suites  # type: ignore[attr-defined]
                ],
                crypto_refs=references,
            ),
        ),
    )


if __name__ == "__main__":
    main()
