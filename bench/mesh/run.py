"""`make bench`: finds the contenders, runs the rounds, and writes what they showed to docs/benchmarks/."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from bench.mesh import certificates, peers, plot, report
from bench.mesh.peers import Peer
from bench.mesh.processes import Failed
from bench.mesh.rounds import Results, alone, together
from proxy.providers import LiboqsAbsent, load_liboqs

_FOLDER: Final = Path(__file__).parents[2] / "docs" / "benchmarks"
# With seven contenders and more: some 15 minutes, and three.
_ROUNDS, _SECONDS, _STARTS = 5, 1.0, 3
_QUICK_ROUNDS, _QUICK_SECONDS, _QUICK_STARTS = 1, 0.5, 1
# Debian's place for the module; where it is built in, nothing is loaded.
_NGINX_STREAM: Final = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_ML_DSA: Final = (3, 5)  # the first OpenSSL that knows it


def run() -> int:
    """Measure, print and write; 2 where Envoy is missing, against which everything is measured."""
    options = _parser().parse_args(sys.argv[2:])
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    seconds = _QUICK_SECONDS if options.quick else _SECONDS
    starts = _QUICK_STARTS if options.quick else _STARTS
    results = Results()
    load = [os.getloadavg()]
    with tempfile.TemporaryDirectory() as name, _application() as application:
        folder = Path(name)
        found = _contenders(folder, os.environ)
        try:
            alone(found, folder, application, starts, results, _say)
            together(found, folder, application, rounds, seconds, results, _say)
        except Failed as failed:
            print(f"\na contender failed: {failed}", file=sys.stderr)
            return 1
    load.append(os.getloadavg())
    _say("")
    text = report.markdown(_session(load, rounds, seconds, found), found, results)
    print(text)
    _write(text, plot.svg(found, results), results, options.output)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works, not to quote")
    parser.add_argument("--rounds", type=int, help=f"({_ROUNDS})")
    parser.add_argument("--output", type=Path, default=_FOLDER, help="folder for the tables and the plot (%(default)s)")
    return parser


def _contenders(folder: Path, environment: Mapping[str, str]) -> list[Peer]:
    now = datetime.datetime.now(datetime.UTC)
    post_quantum = certificates.post_quantum(folder / "post-quantum", now)
    classical = certificates.classical(folder / "classical", now)
    envoy = environment.get("QBITEL_ENVOY") or _beside_python("envoy") or shutil.which("envoy")
    if not envoy:
        raise SystemExit("there is no envoy to measure against: `make bench` installs it, or name one in QBITEL_ENVOY")
    version = f"Envoy {_version(_said(envoy, '--version'))}"
    found = [peers.no_proxy(), *peers.envoys(Path(envoy), version, classical, post_quantum)]
    if haproxy := _with_openssl("haproxy", "-vv", environment):
        found += peers.haproxies(*haproxy, post_quantum)
    if nginx := _with_openssl("nginx", "-V", environment):
        binary, version = nginx
        module = Path(environment.get("QBITEL_NGINX_STREAM", _NGINX_STREAM))
        found += peers.nginxes(binary, module if module.exists() else None, version, post_quantum)
    try:
        load_liboqs(environment)
    except LiboqsAbsent as reason:
        print(f"liboqs is not measured: {reason}")
        liboqs = False
    else:
        liboqs = True
    version = f"QBITEL mesh {importlib.metadata.version('qbitel-mesh')}"
    return [*found, *peers.ours(post_quantum, version, liboqs=liboqs)]


def _beside_python(name: str) -> str | None:
    found = Path(sys.executable).parent / name
    return str(found) if found.exists() else None


def _with_openssl(name: str, flag: str, environment: Mapping[str, str]) -> tuple[Path, str] | None:
    """The program that QBITEL_<NAME> names, or that of PATH, and its version; where its OpenSSL knows ML-DSA."""
    found = environment.get(f"QBITEL_{name.upper()}") or shutil.which(name)
    if not found:
        print(f"{name} is not measured: there is none on PATH, and QBITEL_{name.upper()} names none")
        return None
    said = _said(found, flag)
    versions = re.findall(r"OpenSSL (\d+)\.(\d+)", said)
    newest = max(((int(major), int(minor)) for major, minor in versions), default=(0, 0))
    if newest < _ML_DSA:
        print(f"{name} is not measured: it runs with OpenSSL {newest[0]}.{newest[1]}, and ML-DSA came with 3.5")
        return None
    return Path(found), f"{name} {_version(said)} with OpenSSL {newest[0]}.{newest[1]}"


def _said(program: str, flag: str) -> str:
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _version(said: str) -> str:
    """The first thing in `said` that looks like one."""
    found = re.search(r"\b\d+\.\d+\.\d+\b", said)
    return found[0] if found else "of an unknown version"


@contextlib.contextmanager
def _application() -> Iterator[int]:
    """The echo server that is behind every contender; its port."""
    command = [sys.executable, "-m", "bench.mesh.echo"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None  # noqa: S101  # both are pipes
        assert process.stdout is not None  # noqa: S101
        yield int(process.stdout.readline())
        process.stdin.close()


def _session(load: list[tuple[float, float, float]], rounds: int, seconds: float, found: list[Peer]) -> report.Session:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    now = datetime.datetime.now(datetime.UTC)
    return report.Session(
        f"The data path beside its peers, {now:%Y-%m-%d}",
        (
            f"{os.cpu_count()} cores ({cpu}), Linux {platform.release()} ({_congestion_control()}), "
            f"Python {platform.python_version()}; load {load[0][0]:.1f} before, {load[1][0]:.1f} after",
            f"{rounds} rounds of {seconds:g} s for each figure, all contenders in turn; medians; in brackets the "
            "median of the rounds' ratios to Envoy with MLKEM1024 + ML-DSA-87. Quote the ratios",
            "one worker for each side; load, both proxies and application share the cores; mutual TLS between the "
            "proxies; every connection is written into an access log (to nowhere); buffers are each product's own",
            f"contenders: {', '.join(_versions(found))}",
        ),
    )


def _congestion_control() -> str:
    return _lines("/proc/sys/net/ipv4/tcp_congestion_control")[0]


def _versions(found: list[Peer]) -> list[str]:
    return list(dict.fromkeys(peer.version for peer in found if peer.version))


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines()


def _write(text: str, picture: str, results: Results, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    for name in (today, "latest"):
        linked = f"{text}\n![the figures that matter most]({name}.svg)\n"
        (folder / f"{name}.md").write_text(linked, encoding="utf-8")
        (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
    (folder / f"{today}.json").write_text(json.dumps(results.values, indent=1) + "\n", encoding="utf-8")
    print(f"written to {folder}")


def _say(what: str) -> None:
    """One line that the next overwrites, on a terminal; else nothing."""
    if sys.stderr.isatty():
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
