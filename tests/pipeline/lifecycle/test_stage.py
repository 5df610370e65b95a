"""The check of the packages that a command needs."""

import pytest

from pipeline.lifecycle.stage import StageError, require


def test_installed_modules_are_accepted() -> None:
    require("embed", {"json": "all"})


def test_a_missing_module_is_refused_with_its_extra() -> None:
    with pytest.raises(StageError) as caught:
        require("embed", {"json": "all", "nothing_like_it": "beam"})
    assert str(caught.value) == (
        "`biloom embed` needs nothing_like_it, which is not installed; pip install 'biloom[beam]'"
    )
