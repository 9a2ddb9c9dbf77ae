"""What a person reads on stderr: one line per event, which never makes the data path wait, whoever reads it or not."""

from __future__ import annotations

import logging
from typing import Final

from proxy.lines import MAX_LINE, LineWriter
from proxy.printable import printable

_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"
# In front of each line of a traceback, so that nothing in it can pass for a message of its own.
_TRACEBACK: Final = "  | "


class OneLine(logging.Formatter):
    """One printable line per message, whatever a stranger's name in it holds; tracebacks of ours stand below it."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        """The message without what a terminal would obey."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's name
        """The traceback, line by line."""
        text = super().formatException(ei)  # type: ignore[arg-type]  # its type is private to logging
        return "\n".join(_TRACEBACK + printable(line) for line in text.splitlines())


class MessageHandler(logging.Handler):
    """Writes to the descriptor `fd`, which it does not own, line by line; `dropped` counts lines that were lost."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self.setFormatter(OneLine())
        self.dropped = 0
        # Where stderr cannot be written there is no place left to say so; the count is what remains.
        self._lines = LineWriter(fd, self._drop, lambda _error: None)

    def emit(self, record: logging.LogRecord) -> None:
        """Write `record`, now or as soon as the reader has made room."""
        for line in self.format(record).split("\n"):
            whole = line.encode("utf-8", "backslashreplace")[: MAX_LINE - 1]
            # "ignore": the cut may have gone through a character.
            self._lines.write(whole.decode("utf-8", "ignore").encode() + b"\n")

    def close(self) -> None:
        """Write what can be written without waiting."""
        self._lines.close()
        super().close()

    def _drop(self) -> None:
        self.dropped += 1


def dropped_messages() -> int:
    """How many lines on stderr this process has lost so far."""
    return sum(handler.dropped for handler in logging.getLogger().handlers if isinstance(handler, MessageHandler))
