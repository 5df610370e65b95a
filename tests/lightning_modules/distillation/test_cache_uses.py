"""Which vector caches can be distilled."""

from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.distillation.cache_uses import check_cache
from lightning_modules.distillation.errors import DistillationError
from lightning_modules.distillation.layer import TeacherLayer

MADE = {"layers": "all", "warm_up": False}


def check(details: dict[str, Any]) -> None:
    manifest = SimpleNamespace(details=details)
    cache: Any = SimpleNamespace(
        path="cache", model="m", unit="token", texts_kept=True, manifest=manifest
    )
    model: Any = SimpleNamespace(content="m")
    check_cache(cache, model, TeacherLayer.parse("top", 3))


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"vectors": {**MADE, "warm_up": True}}, "was made with embed.warm_up=true"),
        ({"vectors": {**MADE, "kind": "gradient"}}, "this vector cache has gradients"),
        ({}, "has embed.layers=None, which does not contain layer 2"),
    ],
)
def test_a_cache_that_does_not_fit_is_refused(details: dict[str, Any], message: str) -> None:
    with pytest.raises(DistillationError, match=f"^cache: .*{message}"):
        check(details)


def test_a_cache_that_fits_is_accepted() -> None:
    check({"vectors": MADE})
