"""Work of several threads, in order and a little ahead of whoever uses it."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Every item with what `work` makes of it, in order; up to two items per thread are in the works."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: collections.deque[tuple[Item, Future[Result]]] = collections.deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) > 2 * threads:
                    done, future = waiting.popleft()
                    yield done, future.result()
            for done, future in waiting:
                yield done, future.result()
        finally:  # whoever stops early, by an error or Ctrl-C, need not wait for the rest
            pool.shutdown(wait=False, cancel_futures=True)
