"""Contextual vectors as an embedding of flair: ``TokenEmbeddings`` that taggers and classifiers stack."""

from typing import Any

import flair
import torch
from flair.embeddings import TokenEmbeddings
from flair.embeddings.base import register_embeddings

from lightning_modules.vectors.pretrained import BiLM
from lightning_modules.vectors.selection import Selection, layers_of
from preprocess.tokenizers.segmentation.spanned_text import SpannedText


@register_embeddings
class BiLMEmbeddings(TokenEmbeddings):
    """The vectors of a frozen language model for flair's tokens, found by their characters.

    Args:
        model: model folder, as in `BiLM.from_pretrained`. A saved tagger holds its name only.
        layers, pooling: as in `BiLM.embed`; several layers are joined to one vector.
    """

    def __init__(self, model: str, layers: Any = "mean", pooling: Any = None) -> None:
        super().__init__()
        self.name, self.static_embeddings = f"biloom-{model}", True
        self._params = {"model": model, "layers": layers, "pooling": pooling}
        # In a tuple, so that its weights are not those of a saved tagger.
        self._model = (BiLM.from_pretrained(model),)
        self._selection = Selection(layers_of(layers), "word", pooling)
        self._selection.check(self._model[0].depth)
        count, size = self._selection.shape(self._model[0].depth, self._model[0].dim)
        self._length = count * size
        self.eval()

    @property
    def embedding_length(self) -> int:
        return self._length

    def _add_embeddings_internal(self, sentences: list[Any]) -> None:
        model, texts = self._model[0].to(flair.device), []
        for sentence in sentences:
            ends = [(token.start_position, token.end_position) for token in sentence]
            texts.append(SpannedText(sentence.to_original_text(), ends))
        numbers = [text.numbers for text in model.reader.read(texts)]
        for sentence, kept, one in zip(
            sentences, numbers, model.embed_selection(texts, self._selection), strict=True
        ):
            rows = torch.zeros(len(sentence), self._length)
            rows[list(kept)] = torch.from_numpy(one.vectors).transpose(0, 1).flatten(1)
            for token, row in zip(sentence, rows.to(flair.device), strict=True):
                token.set_embedding(self.name, row)

    def to_params(self) -> dict[str, Any]:
        return self._params

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> "BiLMEmbeddings":
        return cls(params["model"], params["layers"], params["pooling"])
