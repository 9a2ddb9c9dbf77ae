"""The token by which a workload proves who it is before it has a certificate: read from its file at each use."""

from __future__ import annotations

import re
from typing import Final

from mesh.errors import UserError
from proxy.config import EnrolmentConfig
from proxy.reading import read_file

# A projected service-account token has some 1.2 kB; the authority takes no more than this either.
MAX_TOKEN: Final = 16 * 1024
_TOKEN = re.compile(r"[!-~]+\Z")


def read_authorization(config: EnrolmentConfig) -> str:
    """The token of the moment as an Authorization header says it; or UserError with one line, without any of it.

    The kubelet replaces a projected token some time before it ends; one that was kept would be refused some day.
    """
    path = config.bootstrap_token or config.token
    if path is None:
        raise UserError("no file of a token was given")
    content = read_file(
        path,
        limit=MAX_TOKEN,
        # The kubelet projects a token for every user of its container, and nobody else is in there.
        secret=config.bootstrap_token is not None,
        if_missing="`qbitel ca token` makes one"
        if config.bootstrap_token is not None
        else "project a service-account token there",
    )
    token = content.decode("ascii", "replace").strip()
    if not _TOKEN.match(token):
        raise UserError(f"{path} holds no token: one line of printable ASCII characters is expected")
    return f"{'Bearer' if config.bootstrap_token is None else 'Bootstrap'} {token}"
