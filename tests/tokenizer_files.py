"""Small ``tokenizer.json`` files of the usual architectures, trained on a few lines."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LINES = (
    *["the cat sat on the mat, and the dog played with the cat", "größe Straße слово猫が 座った"],
    *["the other player plays a game", "ราชการ नमस्ते दुनिया 한국어", "don't <b>stop</b> it's 1999"],
)
VOCABULARY = 420


def _byte_level(prefix: bool, trim: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    made.decoder = decoders.ByteLevel()
    return made


def _bpe(made: Tokenizer, special: Sequence[str], **settings: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[*special], show_progress=False, **settings
    )
    made.train_from_iterator(LINES * 20, trainer)
    return made


def gpt2() -> Tokenizer:
    """Byte-level BPE without a space before the text, and without an unknown token."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made = _byte_level(prefix=False, trim=False)
    return _bpe(made, ["<|endoftext|>"], initial_alphabet=alphabet)


def roberta() -> Tokenizer:
    """Byte-level BPE with a space before the text, whose offsets leave out spaces."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return _bpe(_byte_level(prefix=True, trim=True), special, initial_alphabet=alphabet)


def bert() -> Tokenizer:
    """WordPiece; lower case, without accents."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    special = ["[PAD]", "[unused0]", "[unused1]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    made.train_from_iterator(LINES * 20, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    return made


def unigram() -> Tokenizer:
    """Unigram after NFKC, as in T5 and XLNet."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>",
        show_progress=False,
    )  # fmt: skip
    made.train_from_iterator(LINES * 20, trainer)
    return made


def llama() -> Tokenizer:
    """BPE of characters that falls back to bytes."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return _bpe(made, special, limit_alphabet=40)


def words() -> Tokenizer:
    """Words and punctuation, with tokens that were added later."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()])
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["[UNK]"], show_progress=False)
    made.train_from_iterator(LINES, trainer)
    made.add_tokens([AddedToken("New York", lstrip=True), "slowly"])
    made.add_special_tokens([AddedToken("[MASK]", lstrip=True, rstrip=True)])
    return made


MAKERS = {made.__name__: made for made in (gpt2, roberta, bert, unigram, llama, words)}


@cache
def tokenizer_file(name: str) -> bytes:
    """Return the bytes of the file of an architecture, one of `MAKERS`; the same in a process."""
    return str(MAKERS[name]().to_str()).encode()
