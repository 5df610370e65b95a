"""The number of subwords follows from the size of the text and from its characters."""

import pytest

from preprocess.config import SentencePieceConfig
from preprocess.tokenizers.subwords import train_sentencepiece
from preprocess.tokenizers.vocabulary_size import pieces_for, pieces_for_bytes


@pytest.mark.parametrize(
    ("size", "pieces"),
    [(0, 1000), (500_000, 2000), (5_000_000, 9000), (10_000_000, 14_100), (1e12, 32_000)],
)
def test_more_text_has_more_pieces(size: float, pieces: int) -> None:
    assert pieces_for_bytes(size) == pieces


def test_a_text_of_many_characters_has_a_piece_for_each_frequent_one() -> None:
    characters = [chr(0x4E00 + number) for number in range(2000)]
    lines = ["".join(characters)] * 10
    assert pieces_for(lines, 1.0) == 3000
    assert pieces_for(lines, 0.5) == 1500
    assert pieces_for([], 1.0) == 1000


def test_a_tokenizer_without_a_vocabulary_is_trained_with_that_of_its_text() -> None:
    lines = ["".join(chr(0x4E00 + (7 * n + m) % 2000) for m in range(50)) for n in range(300)]
    auto = train_sentencepiece(SentencePieceConfig(vocabulary=None), iter(lines))
    number = pieces_for(lines, SentencePieceConfig().character_coverage)
    by_hand = train_sentencepiece(SentencePieceConfig(vocabulary=number), iter(lines))
    assert auto.vocabulary == by_hand.vocabulary
    assert auto.encode(lines[:3])[0].tolist() == by_hand.encode(lines[:3])[0].tolist()
