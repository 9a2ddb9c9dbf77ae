"""`python -m fuzz [--seconds S] [NAME …]`: fuzz each target for S seconds; exit code 1 where something was found.

Each target runs in a process of its own under atheris (libFuzzer), with the branches of our code as its guide. What it
learns goes to a temporary folder; the corpus in the repository is only read. A finding is kept and its path printed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
# A server's ClientHello limit is 32 KiB; what is longer than both flights of a handshake teaches nothing new.
MAX_LENGTH = 40_000


def main() -> int:
    """Run the targets one behind the other."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--seconds", type=int, default=20, help="for each target (%(default)s)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("names", nargs="*")
    options, rest = parser.parse_known_args()
    if options.one:
        return _fuzz_here(options.one, [*options.names, *rest])
    from fuzz.targets import TARGETS  # noqa: PLC0415  # the fuzzing process must instrument this import itself

    unknown = set(options.names) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = [name for name in options.names or TARGETS if not _fuzz(name, options.seconds)]
    print(f"{len(failed)} of {len(options.names or TARGETS)} targets have findings" + (f": {failed}" if failed else ""))
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Fuzz one target in a process of its own; return whether nothing was found."""
    findings = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    with tempfile.TemporaryDirectory() as learnt:
        command = [sys.executable, "-m", "fuzz", "--one", name, learnt]
        if (CORPUS / name).is_dir():
            command.append(str(CORPUS / name))
        command += [f"-max_total_time={seconds}", f"-max_len={MAX_LENGTH}", f"-artifact_prefix={findings}/"]
        command += ["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  # our own program
    runs = next((line.split()[-1] for line in outcome.stderr.splitlines() if "number_of_executed_units" in line), "0")
    found = sorted(findings.iterdir())
    clean = outcome.returncode == 0 and not found and int(runs) > 0
    print(f"{name:22} {runs:>9} inputs in {seconds} s  {'nothing found' if clean else 'FOUND'}", flush=True)
    if clean:
        findings.rmdir()
    else:
        print("\n".join(outcome.stderr.splitlines()[-25:]), *(f"  kept: {path}" for path in found), sep="\n")
    return clean


def _fuzz_here(name: str, arguments: list[str]) -> int:
    import atheris  # noqa: PLC0415  # only the fuzzing process needs it

    with atheris.instrument_imports(include=["pqtls", "mesh", "proxy", "init"]):
        from fuzz.targets import TARGETS  # noqa: PLC0415  # imported under instrumentation

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
