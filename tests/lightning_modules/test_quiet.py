"""Messages of other libraries are suppressed in a block only."""

import logging
import warnings
from contextlib import suppress

import pytest

from lightning_modules.quiet import quiet


def test_messages_below_errors_are_suppressed_and_levels_restored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, other = logging.getLogger("quiet.one"), logging.getLogger("quiet.other")
    one.setLevel(logging.INFO)
    with suppress(RuntimeError), quiet("quiet.one", "quiet.other"):
        warnings.warn("a warning is an error elsewhere", stacklevel=1)
        one.warning("hidden")
        other.warning("hidden")
        one.error("shown")
        raise RuntimeError("stop")
    assert [record.message for record in caplog.records] == ["shown"]
    assert (one.level, other.level) == (logging.INFO, logging.NOTSET)
    with pytest.warns(UserWarning, match="shown again"):
        warnings.warn("shown again", stacklevel=1)
