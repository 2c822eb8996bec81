"""A budget of memory for threads that decode images: large ones wait for each other."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Budget:
    """So many bytes, of which threads take what they need for a while.

    Attributes:
        total: bytes. Who needs more gets it when nobody else has any.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._given_back = Condition()

    @contextmanager
    def taken(self, amount: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them. Who holds some must not ask for more."""
        amount = min(amount, self.total)
        with self._given_back:
            self._given_back.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._given_back:
                self._free += amount
                self._given_back.notify_all()
