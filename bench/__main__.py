"""`python -m bench NAME`: run one benchmark by its name, or list them."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "certmgr": "the authority under load: certificates a second and core, how long each takes, memory",
    "injector": "the webhook at 200 reviews a second on one core: how long a pod's creation waits, CPU, memory",
    "limits": "token buckets, circuit breakers, balancers and tokens: what each decision costs",
    "mesh": "the data path beside no proxy, Envoy, HAProxy and nginx: writes docs/benchmarks/ (20 minutes; --quick)",
    "policy": "decisions by 10, 100 and 1000 policies, compiled and one by one",
    "tls": "the TLS engine beside OpenSSL 4: handshakes full and resumed, bytes on the wire, bulk, requests",
}


def main() -> int:
    """Run the benchmark that the first argument names."""
    words = sys.argv[1:]
    if not words or words[0] not in BENCHMARKS or (len(words) > 1 and words[0] != "mesh"):
        print("usage: python -m bench NAME", *(f"  {name:8} {text}" for name, text in BENCHMARKS.items()), sep="\n")
        return 2
    return importlib.import_module(f"bench.{words[0]}").main() or 0


if __name__ == "__main__":
    sys.exit(main())
