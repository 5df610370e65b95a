"""The token embedding, its map and dropouts, and the choice of an encoder by its config."""

import pytest
import torch

from lightning_modules.config import (
    AdaptiveInputConfig,
    CharCNNInputConfig,
    EmbeddingInputConfig,
    InputConfig,
)
from lightning_modules.nn.inputs.adaptive_input import AdaptiveInput
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.inputs.embedding import InputEncoder, TokenEmbedding, build_input

IDS = torch.arange(24).view(2, 4, 3)


def test_without_a_dim_there_is_no_map() -> None:
    encoder = build_input(EmbeddingInputConfig(), 24, 6).eval()

    assert isinstance(encoder, TokenEmbedding)
    assert encoder(IDS).shape == (2, 4, 3, 6)
    assert torch.equal(encoder(IDS).view(24, 6), encoder.embedding.weight)


def test_vectors_of_another_width_are_mapped() -> None:
    encoder = build_input(EmbeddingInputConfig(dim=5), 24, 6).eval()

    assert isinstance(encoder, TokenEmbedding)
    assert encoder.embedding.weight.shape == (24, 5)
    assert encoder.linear is not None
    expected = encoder.embedding.weight @ encoder.linear.weight.T + encoder.linear.bias
    torch.testing.assert_close(encoder(IDS).view(24, 6), expected)


def test_both_directions_share_the_vectors() -> None:
    encoder = build_input(EmbeddingInputConfig(), 24, 6).eval()

    vectors = encoder(IDS[:1].expand(2, 4, 3))

    assert torch.equal(vectors[0], vectors[1])


def test_dropout_is_applied_in_training_only() -> None:
    torch.manual_seed(1)
    encoder = build_input(EmbeddingInputConfig(dropout=0.5), 24, 6)

    assert 0.2 < (encoder(IDS) == 0).float().mean() < 0.8
    assert not (encoder.eval()(IDS) == 0).any()


def test_type_dropout_zeroes_whole_ids_at_all_positions_and_scales_the_others() -> None:
    torch.manual_seed(1)
    encoder = build_input(EmbeddingInputConfig(type_dropout=0.25, dropout=0.0), 4000, 6)
    assert isinstance(encoder, TokenEmbedding)
    ids = torch.arange(4000).repeat(2, 3, 1)  # each at six positions

    first, second = encoder(ids), encoder(ids)

    kept = first[0, 0].abs().sum(1) > 0
    assert torch.equal(first, first[:1, :1].expand_as(first))
    torch.testing.assert_close(first[0, 0][kept], encoder.embedding.weight[kept] / 0.75)
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert not torch.equal(first, second), "the mask is drawn anew for each call"
    assert torch.equal(encoder.eval()(ids)[0, 0], encoder.embedding.weight)


def test_a_zeroed_id_has_no_gradient() -> None:
    torch.manual_seed(1)
    encoder = build_input(EmbeddingInputConfig(type_dropout=0.5, dropout=0.0), 50, 6)
    assert isinstance(encoder, TokenEmbedding)

    vectors = encoder(torch.arange(50).view(1, 50, 1))
    vectors.sum().backward()

    kept = vectors[0, :, 0].abs().sum(1) > 0
    assert encoder.embedding.weight.grad is not None
    assert torch.equal(encoder.embedding.weight.grad, 2.0 * kept[:, None].expand(50, 6))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (EmbeddingInputConfig(), TokenEmbedding),
        (AdaptiveInputConfig(), AdaptiveInput),
        (CharCNNInputConfig(), CharCNN),
    ],
)
def test_the_config_chooses_the_encoder(config: InputConfig, kind: type[InputEncoder]) -> None:
    assert isinstance(build_input(config, 24, 6, (5,), 2.0, torch.arange(24)), kind)
