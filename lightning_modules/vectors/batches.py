"""How many texts are embedded together: windows of a stream, and batches of a window.

The sizes depend on the kind of device only, not on its free memory, because the last bits of a vector depend
on the shape of its batch.
"""

from collections.abc import Iterable, Iterator, Sequence

from lightning_modules.vectors.selection import SelectionError, Text
from preprocess.tokenizers.aligned_text import checked_texts

WINDOW_BYTES = 1 << 28
"""Planned size of the float32 vectors of a window, in bytes."""
WINDOW_CHARACTERS = 20_000, 200_000
"""Smallest and largest window, in characters."""
BATCH_TOKENS = 8192
"""Tokens per batch of the embed stage."""
GPU_FACTOR = 4
"""The factor by which windows and batches of the embed stage are larger on a GPU, which needs many rows to be
busy. At ELMo's size a window takes 1 GB of the host's memory, twice while it is written."""
LEAST = 16
"""Least positions per call of the network, in each row that has not ended."""
FIXED_ROWS, FIXED_TOKENS = 8, 128
"""Texts in each batch of `plan_fixed_batches`, and the tokens above which a text is a batch by itself."""
CHARACTERS_A_TOKEN = 2
"""Assumed length of a token; a wrong guess changes only the size of a window."""


def window_characters(layers: int, dim: int, factor: int = 1) -> int:
    """Return the number of characters of text to embed together when texts come as a stream.

    Args:
        layers: number of vectors per token, one per layer.
        dim: dimensions of a vector.
        factor: factor by which a window is larger than on a CPU.
    """
    least, most = WINDOW_CHARACTERS
    fitting = WINDOW_BYTES // (4 * layers * dim) * CHARACTERS_A_TOKEN
    return factor * max(least, min(most, fitting))


def text_windows(texts: Iterable[Text], most: int) -> Iterator[list[Text]]:
    """Divide a stream of texts into windows; the last one may be empty.

    Args:
        texts: strings, or lists of words; may be endless.
        most: characters, or texts, at which a window ends.

    Raises:
        TypeError: if a text is neither a string nor a list of words.
    """
    window: list[Text] = []
    characters = 0
    for text in checked_texts(texts):
        window.append(text)
        characters += len(text) if isinstance(text, str) else sum(map(len, text))
        if characters >= most or len(window) >= most:
            yield window
            window, characters = [], 0
    yield window


def plan_batches(
    lengths: Sequence[int], batch_tokens: int, padding: bool = True
) -> list[list[int]]:
    """Group texts of similar length into batches, so that there is little padding.

    Args:
        lengths: number of tokens of each text.
        batch_tokens: tokens per batch. A longer text is a batch by itself.
        padding: whether padding counts. If not, as for `Encoder.encode`, which computes `LEAST` positions or
            more of the rows that have not ended, only the padding of these positions does.

    Returns:
        Indices of the texts of each batch.

    Raises:
        SelectionError: if ``batch_tokens`` is below 1.
    """
    if batch_tokens < 1:
        raise SelectionError(f"batch_tokens: {batch_tokens} is too small; write 1 or more")
    batches: list[list[int]] = []
    before = 0  # tokens of the last batch
    for number in sorted(range(len(lengths)), key=lambda n: (lengths[n], n)):
        length = max(1, lengths[number])
        rows = len(batches[-1]) + 1 if batches else 1
        together = before + length
        at_once = rows * (length if padding else min(length + 1, LEAST))
        if batches and max(together, at_once) <= batch_tokens:
            batches[-1].append(number)
            before = together
        else:
            batches.append([number])
            before = length
    return batches


def plan_fixed_batches(lengths: Sequence[int]) -> list[list[int]]:
    """Group texts so that the shape of a text's batch depends on its own length only.

    The vectors of a text are then equal to the bit, whatever other texts are computed with it.

    Args:
        lengths: number of tokens of each text.

    Returns:
        Indices of the texts of each batch. A batch has `FIXED_ROWS` texts of equal length; if there are
        fewer, its first text is repeated. A text of more than `FIXED_TOKENS` tokens is a batch by itself.
    """
    batches: list[list[int]] = []
    of_length: dict[int, list[int]] = {}
    for number, length in enumerate(lengths):
        if length > FIXED_TOKENS:
            batches.append([number])
        else:
            of_length.setdefault(length, []).append(number)
    for numbers in of_length.values():
        for start in range(0, len(numbers), FIXED_ROWS):
            batch = numbers[start : start + FIXED_ROWS]
            batches.append([*batch, *batch[:1] * (FIXED_ROWS - len(batch))])
    return batches
