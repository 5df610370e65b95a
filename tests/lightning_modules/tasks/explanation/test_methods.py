"""Attributions of toy scores, by hand and by captum."""

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.tasks.explanation import methods
from lightning_modules.tasks.explanation.methods import (
    attribute,
    delete,
    gradient_x_input,
    integrated_gradients,
    occlusion,
)

METHODS = ("integrated_gradients", "gradient_x_input", "occlusion")


@pytest.fixture
def vectors() -> Tensor:
    return torch.randn(7, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def curved(x: Tensor) -> Tensor:
    """A score that no sum over units gives."""
    weight = torch.arange(1, x.shape[1] + 1, dtype=x.dtype)
    mixed = torch.tanh(torch.einsum("bud,u->bd", x, weight) / 4) + x.prod(1)
    return mixed.sum(1) + 0.5


def linear(x: Tensor) -> Tensor:
    return torch.einsum("bud,u->b", x, torch.arange(x.shape[1], dtype=x.dtype)) + 2


@pytest.mark.parametrize("method", METHODS)
def test_all_methods_agree_on_a_linear_score(method: methods.Method, vectors: Tensor) -> None:
    found = attribute(method, linear, vectors)
    expected = (vectors.sum(1) * torch.arange(7)).numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-12)
    assert found.baseline == 2
    assert found.missing == pytest.approx(0, abs=1e-12)


def test_more_points_are_taken_until_the_attributions_add_up(vectors: Tensor) -> None:
    def steep(x: Tensor) -> Tensor:
        return torch.tanh(2000 * (x.sum((1, 2)) / vectors.sum() - 0.4))

    def normed(x: Tensor) -> Tensor:
        """Change abruptly at the baseline, as a layer norm does."""
        centred = x - x.mean((1, 2), keepdim=True)
        return curved(centred / (centred.square().mean((1, 2), keepdim=True) + 1e-12).sqrt())

    first = methods.PANELS * methods.POINTS
    for score, more in ((curved, False), (steep, True), (normed, True)):
        found = integrated_gradients(score, vectors)
        assert (found.points > first) == more
        assert abs(found.missing) < 0.01 * abs(found.score - found.baseline)
        assert abs(found.score - found.baseline) > 0.1
        assert found.unattributed == ""


def test_points_are_bounded_and_the_rest_is_told(
    vectors: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "MOST_POSITIONS", 7 * 80)
    scale = (vectors**2).sum()
    found = integrated_gradients(lambda x: torch.sin(900 * (x**2).sum((1, 2)) / scale), vectors)
    assert found.points == 80
    assert found.unattributed.startswith("; not attributed: ")
    assert gradient_x_input(curved, vectors).unattributed == ""


def test_a_gradient_times_the_input_is_the_slope_along_a_unit(vectors: Tensor) -> None:
    found = gradient_x_input(curved, vectors)
    for unit in range(7):
        longer, shorter = vectors.clone(), vectors.clone()
        longer[unit] *= 1 + 1e-6
        shorter[unit] *= 1 - 1e-6
        slope = (curved(longer[None]) - curved(shorter[None])).item() / 2e-6
        assert found.values[unit] == pytest.approx(slope, abs=1e-7)


def test_occlusion_is_the_fall_of_the_score_without_a_unit(vectors: Tensor) -> None:
    found = occlusion(curved, vectors)
    for unit in range(7):
        without = vectors.clone()
        without[unit] = 0
        fall = (curved(vectors[None]) - curved(without[None])).item()
        assert found.values[unit] == pytest.approx(fall, abs=1e-12)


def test_groups_have_one_attribution(vectors: Tensor) -> None:
    groups = torch.tensor([0, 0, 1, 2, 2, 2, 3])
    single = integrated_gradients(curved, vectors)
    grouped = integrated_gradients(curved, vectors, groups=groups)
    sums = [single.values[groups.numpy() == group].sum() for group in range(4)]
    np.testing.assert_allclose(grouped.values, sums)

    without = vectors.clone()
    without[3:6] = 0
    fall = (curved(vectors[None]) - curved(without[None])).item()
    assert occlusion(curved, vectors, groups).values[2] == pytest.approx(fall, abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_pieces_and_no_units(
    method: methods.Method, vectors: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attribute(method, curved, vectors)
    left = delete(curved, vectors, whole.values)
    monkeypatch.setattr(methods, "POSITIONS", 3)
    np.testing.assert_allclose(attribute(method, curved, vectors).values, whole.values)
    again = delete(curved, vectors, whole.values)
    assert (again.named, again.random) == pytest.approx((left.named, left.random))
    assert attribute(method, curved, vectors[:0]).values.shape == (0,)


def toy() -> tuple[Tensor, Tensor, torch.nn.Module]:
    """Return words, labels and a trained classifier with a maximum over words.

    A text of 12 words has label 1 if it has word 1 or 2, whose vectors differ from the others' by chance only.
    """
    draw = torch.Generator().manual_seed(3)
    words = torch.randint(3, 30, (300, 12), generator=draw)
    labels = torch.arange(300) % 2
    places = torch.randint(0, 12, (300,), generator=draw)
    words[torch.arange(300), places] = torch.where(
        labels == 1, 1 + torch.arange(300) // 2 % 2, words[torch.arange(300), places]
    )
    torch.manual_seed(3)
    table = torch.randn(30, 8)

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.output = torch.nn.Linear(8, 12), torch.nn.Linear(12, 1)

        def forward(self, x: Tensor) -> Tensor:
            score: Tensor = self.output(self.hidden(x).tanh().amax(1)).squeeze(1)
            return score

    model = Toy()
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model(table[words]), labels.float()
        )
        loss.backward()
        optimizer.step()
    assert loss < 0.2
    return words, table, model


def test_deleting_what_is_named_hurts_more_than_deleting_at_random() -> None:
    words, table, model = toy()
    texts = words[1:30:2]  # of label 1
    for method in METHODS:
        named, random, hits = 0.0, 0.0, 0
        for text in texts:
            found = attribute(method, model, table[text])  # type: ignore[arg-type]
            left = delete(model, table[text], found.values, share=0.1)
            assert left.count == 1
            named += found.score - left.named
            random += found.score - left.random
            hits += int(text[found.values.argmax()] < 3)
        assert named > 2 * max(random, 0.1), method
        assert hits > 0.4 * len(texts), method  # by chance: 0.08


@pytest.mark.slow
def test_captum_gives_the_same(vectors: Tensor) -> None:
    from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients

    x = vectors[None].clone().requires_grad_()
    by_captum = {
        "integrated_gradients": IntegratedGradients(curved).attribute(x, n_steps=100),
        "gradient_x_input": InputXGradient(curved).attribute(x),
    }
    for name, expected in by_captum.items():
        found = getattr(methods, name)(curved, vectors)
        np.testing.assert_allclose(found.values, expected.detach()[0].sum(1), atol=1e-6)
    mask = torch.arange(7)[None, :, None].expand(1, 7, 3)
    ablated = FeatureAblation(curved).attribute(x, feature_mask=mask)
    expected = ablated.detach()[0, :, 0]  # the same for all features of a group
    np.testing.assert_allclose(occlusion(curved, vectors).values, expected, atol=1e-6)
