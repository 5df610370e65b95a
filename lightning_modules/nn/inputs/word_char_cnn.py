"""The input encoder of ELMoForManyLangs: a character CNN over a dictionary, and a vector per word.

Che et al. 2018, with the arithmetic of the published code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_modules.config import WordCharCNNInputConfig
from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.recurrent.matmul import Linear
from preprocess.tokenizers.dictionary_speller import PAD, SPECIAL, WORD_BEGIN


class WordCharCNN(CharCNN):
    """A `CharCNN` over Unicode characters, whose output is projected together with the word's vector.

        x = W_p [e; y] + b_p

    with the output y of the last highway layer and the vector e of the word, that of the unknown word
    if it is not in the vocabulary. Types are spelled by `DictionarySpeller`, so the first character of
    a type is the number of its word.

    Args:
        config: sizes, activation and dropout.
        vocabulary: number of ids.
        width: width of the vectors returned.

    Attributes:
        code_points: the characters of the dictionary in the order of their ids, int64 (characters,).
    """

    code_points: Tensor

    def __init__(self, config: WordCharCNNInputConfig, vocabulary: int, width: int) -> None:
        super().__init__(config, width, config.characters, PAD)
        self.words = nn.Embedding(vocabulary, config.word_dim) if config.word_dim else None
        filters = sum(number for _, number in config.filters)
        self.projection = Linear(config.word_dim + filters, width)
        self.register_buffer("code_points", torch.arange(config.characters - SPECIAL))

    def features(self, characters: tuple[Tensor, ...]) -> Tensor:
        """Return the vectors of words and the features of their characters, (types, word_dim + filters)."""
        spelled = tuple(F.pad(bucket[:, 1:], (1, 0), value=WORD_BEGIN) for bucket in characters)
        x = super().features(spelled)
        if self.words is None:
            return x
        numbers = torch.cat([bucket[:, 0] for bucket in characters])  # (types,)
        # Rows of padding only, which fill a block, have no number.
        ids = (numbers - self.characters.num_embeddings).clamp(min=0)
        return torch.cat([self.words(ids), x], 1)
