"""The process that plays the demo. It is started by cli/demo/guard.py, which outlives it and is outlived by it.

In a process namespace it is PID 1: when it ends, however it ends, the kernel ends everything else in there. On
loopback it must see to that itself. Either way it hears from its guard through a socket, the lifeline: "stop" when the
user wants an end, and end-of-file when the guard has been killed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType
from typing import Final

from cli.demo.descendants import adopt_orphans, end_descendants, kill_descendants
from cli.demo.errors import CannotIsolateError, PartFailedError, StoppedError
from cli.demo.loopback import LoopbackStage, free_ports
from cli.demo.options import Options
from cli.demo.pods import PodStage, make_private_folder
from cli.demo.report import Printer, as_json
from cli.demo.show import Show
from cli.demo.stage import Stage
from mesh.errors import UserError

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_CANNOT_ISOLATE: Final = 75  # EX_TEMPFAIL of sysexits(3): the guard tries another stage
# What the guard hears at an orderly end, where there is no reason to give. Silence is a violent end.
LAST_WORDS: Final = b"done"
CLEAR_UP_SECONDS: Final = 5.0
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo; the exit code is the demo's."""
    parser = argparse.ArgumentParser(prog="inside")
    parser.add_argument("--lifeline", type=int, required=True)
    parser.add_argument("--folder", type=Path)  # loopback; without it, namespaces
    parser.add_argument("--reason", default="")
    parser.add_argument("--options", type=Options.from_json, required=True)
    given = parser.parse_args(arguments)
    lifeline = socket.socket(fileno=given.lifeline)
    printer = Printer(sys.stderr if given.options.json else sys.stdout)
    _stop_on_signals()
    _listen_to_guard(lifeline, given.folder)
    last_words = LAST_WORDS
    try:
        code = _play_or_say_why(given.options, printer, given.folder, given.reason)
    except CannotIsolateError as error:
        last_words, code = str(error).encode(), EXIT_CANNOT_ISOLATE
    except StoppedError as stop:
        code = 128 + stop.signal_number  # as a shell reports it
    if given.folder is not None:
        shutil.rmtree(given.folder, ignore_errors=True)  # its guard may be gone
    with suppress(BrokenPipeError):
        lifeline.sendall(last_words)
    lifeline.detach()  # stays open as long as the process: the guard must not take its own end for ours
    return code


def _play_or_say_why(options: Options, printer: Printer, folder: Path | None, reason: str) -> int:
    try:
        return _play(options, printer, folder, reason)
    except UserError as error:
        print(f"qbitel demo: {error}", file=sys.stderr)
        return EXIT_USAGE
    except PartFailedError as error:
        printer.failure(error)
        if options.json:
            print(json.dumps({"ok": False, "error": str(error), "lines": error.lines}), flush=True)
        return EXIT_FAILED


def _play(options: Options, printer: Printer, folder: Path | None, reason: str) -> int:
    with ExitStack() as stack:
        stage = _make_stage(options, stack, folder)
        printer.step(f"{stage.title}{f', because {reason}' if reason else ''}")
        outcome, claims, view = Show(stage, options, printer, reason).perform()
        printer.table(outcome, goes_on=not options.once)
        printer.claims(claims)
        held = all(claim.seen for claim in claims)
        if options.json:
            print(as_json(outcome, claims), flush=True)
        printer.line()
        printer.line("every claim was seen" if held else "NOT every claim was seen")
        if not options.once:
            printer.line("the demo goes on until Ctrl-C")
            try:
                view.run(printer)
            except StoppedError:
                printer.line()
                printer.line("ending")
        return EXIT_OK if held else EXIT_FAILED


def _make_stage(options: Options, stack: ExitStack, folder: Path | None) -> Stage:
    if folder is None:
        return PodStage(stack, make_private_folder(), options.port)
    adopt_orphans()
    stack.callback(end_descendants)
    if not options.app:
        return LoopbackStage(stack, folder, free_ports(1)[0])
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", options.port)) == 0:
            raise UserError(f"port {options.port} of 127.0.0.1 is in use already; end that program first")
    return LoopbackStage(stack, folder, options.port)


def _stop_on_signals() -> None:
    def stop(number: int, _frame: FrameType | None) -> None:
        for other in STOP_SIGNALS:  # once is enough; a second one must not tear the clean-up apart
            signal.signal(other, signal.SIG_IGN)
        raise StoppedError(number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def _listen_to_guard(lifeline: socket.socket, folder: Path | None) -> None:
    def listen() -> None:
        while word := lifeline.recv(16):
            os.kill(os.getpid(), int(word.split()[0]))
        # The guard was killed. In a process namespace everything ends with this process; on loopback the main thread
        # has to clear up, and is given a few seconds for it.
        if folder is not None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(CLEAR_UP_SECONDS)
            kill_descendants()
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(EXIT_FAILED)

    threading.Thread(target=listen, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
