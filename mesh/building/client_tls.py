"""The tls block of a trafficPolicy: how a caller secures what it sends to a host, within the mesh or outside of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mesh.building import checks
from mesh.building.parts import Part

MESH_MODES: Final = ("ISTIO_MUTUAL", "DISABLE")
FOREIGN_MODES: Final = ("SIMPLE", "MUTUAL")
SYSTEM_ROOTS: Final = "system"  # Istio's word for the operating system's


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls(Part):
    """How callers speak TLS to a server outside of the mesh.

    `mode` is SIMPLE (only the server shows a certificate) or MUTUAL. Certificates are paths of files in the caller's
    sidecar (`ca_certificates`, which may also be "system"; with MUTUAL also `client_certificate` and `private_key`), or
    all of them are in the Secret `credential_name`. Without either of `ca_certificates` and `credential_name` the
    server would be anybody, which Istio's analysis warns of (IST0128, IST0129): it is refused. `subject_alt_names` are
    the names of which the server must have one, `sni` the one that it is asked for. These are classical certificates:
    our sidecars speak the mesh's own TLS alone, and hand such connections on. Raises ValueError, which names the
    argument.
    """

    mode: str
    ca_certificates: str | None = None
    client_certificate: str | None = None
    private_key: str | None = None
    credential_name: str | None = None
    sni: str | None = None
    subject_alt_names: Sequence[str] | None = None

    def _build(self) -> dict[str, Any]:
        found: dict[str, Any] = {"mode": checks.choice("mode", self.mode, FOREIGN_MODES)}
        files = {
            "ca_certificates": ("caCertificates", self.ca_certificates),
            "client_certificate": ("clientCertificate", self.client_certificate),
            "private_key": ("privateKey", self.private_key),
        }
        for argument, (name, value) in files.items():
            if value is not None:
                found[name] = _file(argument, value)
        if self.credential_name is not None:
            found["credentialName"] = checks.object_name("credential_name", self.credential_name)
        self._check_certificates()
        if self.sni is not None:
            found["sni"] = checks.host("sni", self.sni, wildcard=False)
        if self.subject_alt_names is not None:
            found["subjectAltNames"] = checks.several(
                "subject_alt_names", self.subject_alt_names, checks.text, fewest=1
            )
        return found

    def _check_certificates(self) -> None:
        own = {"client_certificate": self.client_certificate, "private_key": self.private_key}
        if self.credential_name is not None:
            if beside := [name for name, value in {"ca_certificates": self.ca_certificates, **own}.items() if value]:
                raise ValueError(f"{beside[0]}: credential_name is given too, which holds all certificates; give one")
            return
        if self.ca_certificates is None:
            raise ValueError(
                "ca_certificates: without them the server may be anybody; give a file, 'system', or credential_name"
            )
        for argument, value in own.items():
            if (value is not None) != (self.mode == "MUTUAL"):
                says = "MUTUAL needs it" if value is None else "SIMPLE shows no certificate of the caller's"
                raise ValueError(f"{argument}: {says}; give client_certificate and private_key with MUTUAL alone")


def mesh_tls(argument: str, mode: object) -> dict[str, Any]:
    """The tls block within the mesh."""
    return {"mode": checks.choice(argument, mode, MESH_MODES)}


def _file(argument: str, value: object) -> str:
    if not isinstance(value, str) or not (
        value.startswith("/") or (argument == "ca_certificates" and value == SYSTEM_ROOTS)
    ):
        # Not the value: whoever gives a key in place of its file must not find it in a log.
        raise ValueError(f"{argument}: it is no path; give the whole path of a file, as in /etc/certs/{argument}.pem")
    return checks.text(argument, value)
