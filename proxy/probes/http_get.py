"""A probe over HTTP as the kubelet makes it: no certificate is verified, and redirects are followed inside the pod."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urljoin, urlsplit

import h11

from mesh import names
from proxy.config import Endpoint
from proxy.printable import printable
from proxy.probes.channel import PlainChannel, TlsChannel
from proxy.probes.dialling import dialled
from proxy.probes.outcome import NoAnswer, Outcome
from proxy.probes.questions import HttpGet

# The kubelet's own bounds: bytes that it reads of a body, and redirects that it follows.
_MAX_BODY: Final = 10 * 1024
_MAX_REDIRECTS: Final = 10
# Bytes of an answer's head; servers take 8 KB or 16 KB of a request's.
_MAX_HEAD: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
# Of a URL behind the address (RFC 3986, appendix A); everything else is written with a percent sign.
_LEGAL: Final = "/?:@!$&'()*+,;=-._~%"
# What answers there is the sidecar.
_OUR_PORTS: Final = frozenset(
    {
        *(names.ADMIN_PORT, names.OUTBOUND_PORT, names.SELF_TEST_PORT, names.INBOUND_PORT, names.TUNNEL_PORT),
        *(names.HEALTH_PORT, names.DNS_PORT, names.METRICS_PORT),
    }
)

_Headers = list[tuple[str, str]]


async def ask_http(question: HttpGet, host: str, port: int, user_agent: str) -> Outcome:
    """GET it of the application at `host`, an address of this pod. Raises NoAnswer and OSError."""
    url = f"{question.scheme}://{Endpoint(host, port)}{quote(question.path, safe=_LEGAL)}"
    headers = _headers(question, user_agent)
    try:
        for _ in range(_MAX_REDIRECTS + 1):
            status, location = await _get(url, headers)
            if status not in _REDIRECTS or not location:
                return Outcome(status, f"the application answers {status}")
            if urlsplit(location).netloc:
                # The kubelet's client keeps a Host that it was told for as long as redirects name none.
                headers = [(name, value) for name, value in headers if name.lower() != "host"]
            url = urljoin(url, location)
            to = urlsplit(url)
            if to.hostname != host.lower():
                return Outcome(status, f"the application answers {status}, to another host", url)
            if to.scheme not in _PORTS or to.port in _OUR_PORTS:
                raise NoAnswer(f"it redirects to {printable(url, 200)}, where no application answers")
    except (h11.ProtocolError, ValueError) as error:
        raise NoAnswer(f"its answer is none of HTTP: {printable(str(error), 200)}") from error
    raise NoAnswer(f"it redirects more than {_MAX_REDIRECTS} times")


async def _get(url: str, headers: _Headers) -> tuple[int, str]:
    """(status, Location) of one exchange, whose body must be in order as far as it is read."""
    to = urlsplit(url)
    if not any(name.lower() == "host" for name, _ in headers):
        headers = [("Host", to.netloc), *headers]
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD)
    target = f"{to.path or '/'}?{to.query}" if to.query else to.path or "/"
    request = h11.Request(method="GET", target=target, headers=headers)
    async with dialled(to.hostname or "", to.port or _PORTS[to.scheme]) as sock:
        channel = TlsChannel(sock) if to.scheme == "https" else PlainChannel(sock)
        await channel.send((http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        status, location, left = 0, "", _MAX_BODY
        while left > 0:
            match http.next_event():
                case h11.NEED_DATA:
                    if not (received := await channel.receive()) and not status:
                        raise NoAnswer("it closed the connection before it answered")
                    http.receive_data(received)
                case h11.Response(status_code=status, headers=answered):
                    location = next((value.decode("latin-1") for name, value in answered if name == b"location"), "")
                case h11.Data(data=data):
                    left -= len(data)
                case h11.EndOfMessage():
                    break
        return status, quote(location, safe=_LEGAL + "#[]")


def _headers(question: HttpGet, user_agent: str) -> _Headers:
    """Those of the probe; where it has none of these two, the kubelet's. An empty one means: none at all."""
    given = {name.lower() for name, _ in question.headers}
    usual = [("User-Agent", user_agent), ("Accept", "*/*"), ("Connection", "close")]
    return [
        *((name, value) for name, value in usual if name.lower() not in given),
        *((name, value) for name, value in question.headers if value or name.lower() not in ("user-agent", "accept")),
    ]
