"""The lines of an estimate."""

import pytest

from pipeline.commands.look.estimates import Amount, Estimate
from pipeline.commands.look.tables import estimate_line

MB = 10**6
ONE = Estimate(
    seconds=Amount.around(60, 1.3),
    cpu_seconds=Amount.around(60, 1.3),
    memory=Amount.around(230 * MB, 1.25),
    disk=Amount.around(134 * MB, 1.15),
    result=Amount.around(58 * MB, 1.15),
)
NOTHING = Amount(0, 0, 0)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (
            ONE,
            "prepare: about 60 seconds (46 to 78 seconds), 230MB (184 to 288MB) of memory, 134MB (117 to "
            "154MB) of disk while it runs, 58MB after it",
        ),
        (
            ONE._replace(processes=3),
            "prepare: about 60 seconds (46 to 78 seconds), 60 seconds (46 to 78 seconds) of CPU time, 230MB "
            "(184 to 288MB) of memory in 3 processes, 134MB (117 to 154MB) of disk while it runs, 58MB "
            "after it",
        ),
        (
            ONE._replace(seconds=None, processes=None, is_elsewhere=True),
            "prepare: 60 seconds (46 to 78 seconds) of CPU time, 230MB (184 to 288MB) of memory for each "
            "worker, 134MB (117 to 154MB) of disk while it runs, 58MB after it",
        ),
        (
            ONE._replace(
                disk=NOTHING, result=NOTHING, seconds=Amount(80, 70, 3600), memory=Amount(9, 5, 2e9)
            ),
            "prepare: about 80 seconds (70 seconds to 1 hour), 9B (5B to 2GB) of memory",
        ),
        (
            ONE._replace(disk=NOTHING, memory=Amount(9, 5, 25)),
            "prepare: about 60 seconds (46 to 78 seconds), 9B (5 to 25B) of memory",
        ),
        (
            ONE._replace(disk=NOTHING, seconds=Amount(1, 0.8, 1.2)),
            "prepare: about 1 second, 230MB (184 to 288MB) of memory",
        ),
    ],
)
def test_an_estimate_is_a_line_with_ranges(estimate: Estimate, expected: str) -> None:
    assert estimate_line("prepare", estimate) == expected
