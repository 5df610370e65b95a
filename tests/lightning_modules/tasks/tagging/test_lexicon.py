"""Words and characters of a training file."""

from lightning_modules.tasks.tagging.lexicon import FIRST, LONGEST, UNKNOWN, Lexicon

SENTENCES = [("The", "cat", "saw", "the", "cat"), ("In", "1996", "1997", "b")]


def test_words_differ_by_neither_case_nor_digits() -> None:
    lexicon = Lexicon.of(SENTENCES)
    assert lexicon.words == ("0000", "cat", "the", "b", "in", "saw")
    assert lexicon.repeated == 3
    ids = lexicon.word_ids(["THE", "2001", "dog"]).tolist()
    assert ids == [FIRST + 2, FIRST, UNKNOWN]


def test_characters_keep_their_case_and_must_occur_twice() -> None:
    lexicon = Lexicon.of(SENTENCES)
    assert "t" in lexicon.characters
    assert "I" not in lexicon.characters
    ids = lexicon.character_ids(["tI"])
    assert ids[0, :3].tolist() == [FIRST + lexicon.characters.index("t"), UNKNOWN, 0]


def test_a_long_word_is_read_at_both_ends() -> None:
    lexicon = Lexicon.of([("ab" * 20, "ab" * 20)])
    a, b = (FIRST + lexicon.characters.index(one) for one in "ab")
    [row] = lexicon.character_ids(["a" * 500 + "b" * 500]).tolist()
    assert row == [a] * (LONGEST // 2) + [b] * (LONGEST // 2)
