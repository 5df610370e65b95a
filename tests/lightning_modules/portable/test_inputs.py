"""Input encoders in exportable operations, beside those of the network."""

import pytest
import torch

from lightning_modules.nn.inputs.char_cnn import CharCNN
from lightning_modules.nn.window import Types
from lightning_modules.portable.feeds import feeds_of
from lightning_modules.portable.inputs import SpelledInput
from tests.exportable_models import make_model, texts_of


@pytest.mark.parametrize("name", ["characters", "characters, tanh", "words and characters"])
@pytest.mark.parametrize("extra", [0, 1, 9])
def test_words_have_the_vectors_of_the_cnn(name: str, extra: int) -> None:
    model = make_model(name).double()
    cnn = model.network.input
    assert isinstance(cnn, CharCNN)
    # From a word of one character to one that fills all positions, each alone and all together.
    for texts in (*[[["w" * n]] for n in range(1, 12)], texts_of(3, 40)):
        characters = torch.from_numpy(feeds_of(model, texts)["characters"])
        spelled = SpelledInput(cnn)
        room = cnn.max_characters - characters.shape[1]
        padded = torch.nn.functional.pad(characters, (0, min(extra, room)), value=spelled.pad)
        places = torch.arange(len(characters))
        with torch.no_grad():
            expected = cnn(Types((characters,), places), training=False)
            found = spelled(padded)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
