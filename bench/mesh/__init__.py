"""The data path beside its peers: `make bench` (docs/benchmarks/)."""

from __future__ import annotations


def main() -> int:
    """Run it all. What it needs is imported here: the load and the application are modules of this package, too."""
    from bench.mesh.run import run  # noqa: PLC0415

    return run()
