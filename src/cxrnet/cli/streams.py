"""stdout and stderr that never end a command: nobody may read them any more, and they may not know all characters.

A pipe whose reader left, a terminal that was closed and a full disk behind ``> log`` are no reason to lose a training.
"""

import errno
import io
import os
import sys


class _Lasting(io.FileIO):
    """A file that drops what can't be written.

    Attributes:
        lost: why the first words were dropped.
    """

    lost: OSError | None = None

    def write(self, data, /):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 (as io has it)
        if self.lost is None:
            try:
                return super().write(data)
            except OSError as error:
                self.lost = error
        return memoryview(data).nbytes


def keep_streams() -> None:
    """Let stdout and stderr of this process drop what can't be written, and write what they can't encode escaped.

    Streams that somebody has put in their places are left alone.
    """
    for number in range(3):  # a file that is opened later must not get the number of a stream that is closed
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            nowhere = open(os.devnull, "w", encoding="utf-8", errors="replace")  # noqa: SIM115, PTH123 (never closed)
            setattr(sys, name, nowhere)
        elif _is_plain(stream, number):
            stream.flush()
            lasting = io.TextIOWrapper(
                io.BufferedWriter(_Lasting(number, "w", closefd=False)),
                encoding=stream.encoding,
                errors="backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            setattr(sys, name, lasting)


def stdout_lost() -> OSError | None:
    """Say why what was printed isn't where it should be; ``None`` where it is, as far as the system knows."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.lost if isinstance(raw, _Lasting) else None


def nobody_reads() -> bool:
    """Tell whether the reader of stdout has left, as ``head`` does when it has its lines."""
    lost = stdout_lost()
    return lost is not None and lost.errno == errno.EPIPE


def _is_plain(stream: object, number: int) -> bool:
    """Tell whether a stream is the one that Python has made for a file number."""
    raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
    return isinstance(stream, io.TextIOWrapper) and type(raw) is io.FileIO and raw.fileno() == number
