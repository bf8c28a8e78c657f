"""Work done a little ahead."""

import threading

import pytest

from data_gen.files.ahead import ahead


def test_results_come_in_order_and_only_a_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    done = ahead(lambda number: number * number, items(), threads=2)
    assert next(done) == (0, 0) and len(taken) == 5
    assert list(done) == [(number, number * number) for number in range(1, 20)]


def test_whoever_stops_early_does_not_wait_for_what_was_not_begun():
    begun, go_on = [], threading.Event()

    def work(number):
        begun.append(number)
        if number == 0:
            raise KeyError("no")
        go_on.wait(10)

    with pytest.raises(KeyError):
        for _ in ahead(work, range(8), threads=1):
            pass
    assert len(begun) <= 2
