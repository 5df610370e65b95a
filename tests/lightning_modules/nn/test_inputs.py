"""Token embedding: shapes, the map to the stack's width, dropout in training only."""

import torch

from lightning_modules.config import EmbeddingInputConfig
from lightning_modules.nn.inputs import TokenEmbedding, build_input

IDS = torch.arange(24).view(2, 4, 3)


def test_without_a_dim_the_vectors_have_the_stacks_width_and_no_map() -> None:
    encoder = build_input(EmbeddingInputConfig(), 24, 6).eval()

    assert isinstance(encoder, TokenEmbedding)
    assert encoder(IDS).shape == (2, 4, 3, 6)
    assert torch.equal(encoder(IDS).view(24, 6), encoder.embedding.weight)


def test_another_dim_passes_a_linear_map() -> None:
    encoder = build_input(EmbeddingInputConfig(dim=5), 24, 6).eval()

    assert encoder.embedding.weight.shape == (24, 5)
    assert encoder.linear is not None
    expected = encoder.embedding.weight @ encoder.linear.weight.T + encoder.linear.bias
    torch.testing.assert_close(encoder(IDS).view(24, 6), expected)


def test_both_directions_share_the_vectors() -> None:
    encoder = build_input(EmbeddingInputConfig(), 24, 6).eval()

    vectors = encoder(IDS[:1].expand(2, 4, 3))

    assert torch.equal(vectors[0], vectors[1])


def test_dropout_falls_in_training_only() -> None:
    torch.manual_seed(1)
    encoder = build_input(EmbeddingInputConfig(dropout=0.5), 24, 6)

    assert 0.2 < (encoder(IDS) == 0).float().mean() < 0.8
    assert not (encoder.eval()(IDS) == 0).any()
