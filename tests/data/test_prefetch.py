from __future__ import annotations

import threading

import pytest

from flowexp.data.prefetch import ahead


@pytest.mark.parametrize("depth", [0, 1, 3, 20])
def test_results_come_in_the_order_of_their_items(depth: int):
    assert list(ahead(lambda number: number**2, range(10), depth)) == [number**2 for number in range(10)]


def test_no_more_than_depth_items_are_taken_before_they_are_asked_for():
    taken: list[int] = []
    results = ahead(lambda number: number, (taken.append(number) or number for number in range(10)), 2)
    assert not taken and next(results) == 0 and len(taken) == 3
    results.close()
    assert len(taken) == 3


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_comes_at_its_items_turn(depth: int):
    results = ahead(lambda number: 6 // (2 - number), range(5), depth)
    assert [next(results), next(results)] == [3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_thread_ends_with_the_generator():
    before = threading.active_count()
    results = ahead(str, range(10), 2)
    next(results)
    results.close()
    assert threading.active_count() <= before  # other threads may end meanwhile
