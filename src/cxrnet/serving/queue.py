"""The queue in front of the network: bounded, and read by one thread that takes all that wait at once."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cxrnet.data.images.decode import ImageError
from cxrnet.errors import CxrnetError
from cxrnet.serving.reader import Look, Reader, Reading, Upload
from cxrnet.serving.uploads import RefusedError

Answers = list[Reading | ImageError]


@dataclass(frozen=True)
class _Waiting:
    uploads: Sequence[Upload]
    answers: "asyncio.Future[Answers]"


class Queue:
    """Requests that wait for a reader.

    Args:
        reader: reads them, in one thread.
        room: files that may wait; a request for which there is none is refused.
        together: files that are read at once, at most, but for a request that has more.
        seconds: that a request waits.
    """

    def __init__(self, reader: Reader, room: int, together: int, seconds: float) -> None:
        self._reader, self._room, self._together, self._seconds = reader, room, together, seconds
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "reader")
        self._working: asyncio.Task[None] | None = None
        self.files = 0  # that wait or are read

    async def read(self, uploads: Sequence[Upload]) -> Answers:
        """Wait for the readings of some files.

        Raises:
            RefusedError: there is no room (429), or it takes too long (503).
        """
        if self.files and self.files + len(uploads) > self._room:
            raise RefusedError(429, "too many images are waiting; try again in a moment")
        waiting = _Waiting(uploads, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self.files += len(uploads)
        if self._working is None or self._working.done():
            self._working = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(self._seconds):
                return await waiting.answers
        except TimeoutError:
            raise RefusedError(503, "the images weren't read in time; try again in a moment") from None

    async def look(self, upload: Upload, label: str | None) -> Look:
        """Wait for one image and its map.

        Raises:
            RefusedError: there is no room (429), it takes too long (503), or file or label won't do (422).
        """
        if self.files >= self._room:
            raise RefusedError(429, "too many images are waiting; try again in a moment")
        self.files += 1
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._reader.look, upload, label)
        work.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(work)
        except TimeoutError:
            raise RefusedError(503, "the map wasn't made in time; try again in a moment") from None
        except CxrnetError as error:
            raise RefusedError(422, str(error)) from error

    def _leave(self, work: "asyncio.Future[Look]") -> None:
        self.files -= 1
        if not work.cancelled():
            work.exception()  # or, where nobody waits any more, it would be called forgotten

    def close(self) -> None:
        """Let the threads go."""
        self._thread.shutdown(cancel_futures=True)
        self._reader.close()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch = [self._waiting.popleft()]
            count = len(batch[0].uploads)
            while self._waiting and count + len(self._waiting[0].uploads) <= self._together:
                batch.append(self._waiting.popleft())
                count += len(batch[-1].uploads)
            wanted = [each for each in batch if not each.answers.done()]  # nobody waits for the others any more
            files = [upload for each in wanted for upload in each.uploads]
            try:
                answers = await loop.run_in_executor(self._thread, self._reader.read, files) if files else []
            except Exception as error:  # a defect: those who wait must hear of it, and the next ones be read
                for each in wanted:
                    if not each.answers.done():
                        each.answers.set_exception(error)
            else:
                for each in wanted:
                    own, answers = answers[: len(each.uploads)], answers[len(each.uploads) :]
                    if not each.answers.done():
                        each.answers.set_result(own)
            finally:
                self.files -= count
