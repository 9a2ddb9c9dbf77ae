"""Runs one script of tlsfuzzer against a server that demands a client certificate and has hybrid groups only.

Arguments: a checkout of tlsfuzzer, the name of a script (tls13_conversation), and a JSON object with "cert", "key" (PEM
files of the client) and "arguments" (of the script). Its output and exit code are the script's.

The scripts are run unchanged, but the world around them is another than they were written for:

* They offer P-256 by default. In a script's own namespace the name `secp256r1` of a group stands for X25519MLKEM768.
* Where a script offers RSA signatures only, its `rsa_pss_rsae_sha256` stands for `ecdsa_secp256r1_sha256`, and its
  list of RSA signatures for that of all.
* Most expect a server that does not ask for a certificate. Where such a conversation goes from EncryptedExtensions to
  Certificate, a CertificateRequest is expected between the two, and Certificate and CertificateVerify are sent before
  the Finished that follows.
* A change_cipher_spec of the server's is neither demanded nor refused.
"""

import importlib
import inspect
import json
import sys
from pathlib import Path

CHECKOUT, SCRIPT, OPTIONS = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
sys.path.insert(0, CHECKOUT)

from tlsfuzzer import expect, helpers, messages, runner  # noqa: E402  # after the path to them is known
from tlslite.constants import ContentType, GroupName, SignatureScheme  # noqa: E402
from tlslite.messagesocket import MessageSocket  # noqa: E402
from tlslite.utils.keyfactory import parsePEMKey  # noqa: E402
from tlslite.x509 import X509  # noqa: E402
from tlslite.x509certchain import X509CertChain  # noqa: E402


def credential():
    parsed = X509()
    parsed.parse(Path(OPTIONS["cert"]).read_text())
    return X509CertChain([parsed]), parsePEMKey(Path(OPTIONS["key"]).read_text(), private=True)


CHAIN, KEY = credential()


def for_mutual_tls(node, asked=False, seen=None):
    """Rewrite the conversation that begins at `node`, in place; `asked`: a CertificateRequest came before it."""
    seen = set() if seen is None else seen
    while node is not None and id(node) not in seen:
        seen.add(id(node))
        skip_change_cipher_spec(node)
        if isinstance(node, expect.ExpectEncryptedExtensions) and isinstance(node.child, expect.ExpectCertificate):
            request = expect.ExpectCertificateRequest()
            request.child = node.child
            node.child = request
        if isinstance(node, (expect.ExpectServerHello, expect.ExpectHelloRetryRequest)):
            asked = False
        if isinstance(node, expect.ExpectCertificateRequest):
            asked = True
        if isinstance(node, messages.CertificateGenerator):
            asked = False
        if asked and isinstance(node.child, messages.FinishedGenerator):
            certificate = messages.CertificateGenerator(CHAIN)
            verify = messages.CertificateVerifyGenerator(KEY)
            certificate.child, verify.child, node.child = verify, node.child, certificate
            asked = False
        if node.next_sibling is not None:
            for_mutual_tls(node.next_sibling, asked, seen)
        node = node.child


def skip_change_cipher_spec(node):
    while isinstance(node.child, expect.ExpectChangeCipherSpec):
        node.child = node.child.child


def without_change_cipher_spec(receive):
    def wrapped(self):
        while True:
            header, parser = receive(self)
            if header.type != ContentType.change_cipher_spec:
                return header, parser

    return wrapped


def rewriting(construct):
    def wrapped(self, conversation):
        for_mutual_tls(conversation)
        construct(self, conversation)

    return wrapped


def main():
    runner.Runner.__init__ = rewriting(runner.Runner.__init__)
    MessageSocket.recvMessageBlocking = without_change_cipher_spec(MessageSocket.recvMessageBlocking)
    script = importlib.import_module(f"tlsfuzzer._apps.test_{SCRIPT}")
    if hasattr(script, "GroupName"):
        script.GroupName = type("GroupName", (GroupName,), {"secp256r1": GroupName.x25519mlkem768})
    if hasattr(script, "SignatureScheme") and "ecdsa_secp256r1_sha256" not in inspect.getsource(script):
        substitutes = {"rsa_pss_rsae_sha256": SignatureScheme.ecdsa_secp256r1_sha256}
        script.SignatureScheme = type("SignatureScheme", (SignatureScheme,), substitutes)
    if hasattr(script, "RSA_SIG_ALL"):
        script.RSA_SIG_ALL = helpers.SIG_ALL
    sys.argv = [f"{SCRIPT}.py", *OPTIONS["arguments"]]
    script.main()


main()
