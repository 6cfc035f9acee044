"""Amounts of work add up."""

import pytest
from valleys.costs.machine import Machine
from valleys.costs.work import Work


def test_work_adds_up():
    machine = Machine(flops=100, traffic=10, layer_s=0.5, start_s=1, memory_mb=1)
    work = Work(flops=200, bytes=30, layers=2) + 2 * Work(layers=1)
    assert work.seconds(machine) == pytest.approx(2 + 3 + 2)
