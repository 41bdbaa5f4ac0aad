"""Work done ahead of its use, in another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(function: Callable[[Item], Result], items: Iterable[Item], depth: int) -> Iterator[Result]:
    """function(item) of all items in their order, up to `depth` of them computed ahead; 0 computes on demand.

    One thread does the work, so the function needs no lock. What it raises is raised here, at its item's turn.
    """
    if depth == 0:
        yield from map(function, items)
        return
    remaining = iter(items)
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        queue: deque[Future[Result]] = deque(pool.submit(function, item) for item in islice(remaining, depth))
        while queue:
            result = queue.popleft().result()
            queue.extend(pool.submit(function, item) for item in islice(remaining, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
