import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxrnet.data.images.reader import Budget


def test_no_more_is_taken_than_there_is_and_all_get_their_turn():
    budget, lock, held, most = Budget(100), threading.Lock(), [0], []

    def work(amount: int) -> None:
        with budget.taken(amount):
            with lock:
                held[0] += min(amount, 100)
                most.append(held[0])
            with lock:
                held[0] -= min(amount, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [10, 60, 70, 100, 500, 5, 30] * 40))  # 500: when nobody else has any
    assert len(most) == 280
    assert max(most) <= 100


def test_who_fails_gives_back():
    budget = Budget(1)
    with pytest.raises(RuntimeError), budget.taken(1):
        raise RuntimeError
    with budget.taken(1):
        pass
