"""The likely encoding of a text: UTF-16 without a mark, escape sequences, and chardet's answers."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.reading.encodings.likely import find_unmarked, likely_encoding

TEXTS = {
    "en": "It is a truth universally acknowledged, that a single man in possession of a good\n",
    "de": "Über den Wolken muß die Freiheit wohl grenzenlos sein, sagte das schöne Mädchen.\n",
    "ru": "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива.\n",
    "he": "כל האנשים נולדו בני חורין ושווים בערכם ובזכויותיהם, כולם חוננו בתבונה ובמצפון.\n",
    "zh": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。\n",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。\n",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 천부적으로\n",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ\n",
    "hi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।\n",
    "emoji": "😀 👩‍👩‍👧 ok\n",
}
SHORT = {
    "en": ("I agree.\n", "no\nyes\n"),
    "ru": ("Да.\n", "да\nнет\n"),
    "zh": ("你好吗\n", "很好吃。\n", "第一条\n"),
    "ja": ("ありがとう\n", "あなたのなまえは\n", "カメラ\n"),
}
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
LEGACY = [
    *(("de", "cp1252"), ("de", "mac-roman"), ("ru", "cp1251"), ("ru", "koi8-r"), ("ru", "cp866")),
    *(("ru", "iso8859-5"), ("he", "cp1255"), ("zh", "gb18030"), ("ja", "shift_jis")),
    *(("ja", "euc_jp"), ("ko", "cp949"), ("ko", "johab"), ("th", "cp874")),
]


@pytest.fixture(autouse=True)
def _no_cached_answers() -> Iterator[None]:
    likely_encoding.cache_clear()
    yield
    likely_encoding.cache_clear()


@pytest.mark.parametrize("language", TEXTS)
@pytest.mark.parametrize("encoding", WIDE)
def test_utf16_and_utf32_are_found_without_a_mark(language: str, encoding: str) -> None:
    data = TEXTS[language].encode(encoding)
    assert find_unmarked(data) == encoding
    # The first bytes of a file may end inside a character.
    assert find_unmarked(data * 1000 + data[:-3]) == encoding


@pytest.mark.parametrize("encoding", WIDE)
def test_short_lines_in_utf16_and_utf32_are_found(encoding: str) -> None:
    for text in (text for texts in SHORT.values() for text in texts):
        assert find_unmarked(text.encode(encoding)) == encoding, text


@pytest.mark.parametrize("language", ["en", "de", "ru", "he", "zh", "ja"])
def test_a_text_with_nul_bytes_is_not_taken_for_them(language: str) -> None:
    line = TEXTS[language].encode()[:19].decode("utf-8", "ignore").encode()
    for place in range(len(line) + 1):
        damaged = line[:place] + b"\0" + line[place:]
        assert find_unmarked(damaged) is None, damaged
        padded = line[:place] + b"\0" * 7 + line[place:]
        assert find_unmarked(padded) is None, padded
    whole = TEXTS[language].encode()
    assert find_unmarked(whole.replace(b"\n", b"\n\0") * 9) is None
    assert find_unmarked(whole.replace(b" ", b"\0") * 9) is None


WORDS = {language: TEXTS[language].split() for language in ("en", "de", "ru", "he")}


@settings(deadline=None)
@given(st.data())
def test_any_words_with_a_nul_byte_and_without(data: st.DataObject) -> None:
    words = WORDS[data.draw(st.sampled_from([*WORDS]))]
    line = " ".join(data.draw(st.lists(st.sampled_from(words), min_size=7, max_size=30)))
    for encoding in WIDE:
        assert find_unmarked(f"{line}\n".encode(encoding)) == encoding
    encoded = line.encode()
    place = data.draw(st.integers(0, len(encoded)))
    damaged = encoded[:place] + b"\0" * data.draw(st.integers(1, 9)) + encoded[place:]
    assert find_unmarked(damaged) is None


@pytest.mark.parametrize(
    ("language", "encoding"),
    [("ja", "iso2022_jp"), ("ko", "iso2022_kr"), ("zh", "hz")],
)
def test_encodings_with_escape_sequences_are_found(language: str, encoding: str) -> None:
    data = (TEXTS["en"] + TEXTS[language]).encode(encoding)
    assert find_unmarked(data) == encoding
    assert find_unmarked(data[:-9]) == encoding


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"a\0",
        b"\0" * 3000,
        b"\0\n" * 1000,
        TEXTS["en"].encode() * 10 + b"\0",
        b"a text with a \0 in each of its lines, as some logs have\n" * 100,
        b"\x1b[31mred\x1b[0m text\n",
        b"\x1b$B a terminal's escape sequence \x1b(B\n",
        b"a ~{ in code ~} is no Chinese\n",
        b"\x1b$B$\x1b" * 20,
        *(text.encode() for text in TEXTS.values()),
    ],
)
def test_other_text_is_not_taken_for_them(data: bytes) -> None:
    assert find_unmarked(data) is None


@pytest.mark.parametrize(("language", "encoding"), LEGACY)
def test_the_likely_encoding_decodes_the_text(language: str, encoding: str) -> None:
    data = (TEXTS[language] * 5).encode(encoding)
    likely = likely_encoding(data)
    assert likely is not None
    assert data.decode(likely[0]) == TEXTS[language] * 5
    assert likely[1] > 0.1


def test_a_superset_of_the_detected_encoding_is_preferred() -> None:
    likely = likely_encoding(TEXTS["de"].encode("latin-1") * 5)
    assert likely is not None
    assert likely[0] == "cp1252"
    # In cp1252 the byte 81 is invalid.
    likely = likely_encoding((TEXTS["de"] * 5 + "\x81\n").encode("latin-1"))
    assert likely is None or likely[0] != "cp1252"


def test_no_encoding_is_likely_for_bytes_that_are_no_text() -> None:
    assert likely_encoding(bytes(range(1, 256)) * 20) is None


def test_the_detector_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chardet", None)
    assert likely_encoding(TEXTS["en"].encode("utf-16-le")) == ("utf-16-le", 1.0)
    with pytest.raises(ModuleNotFoundError):
        likely_encoding(TEXTS["ru"].encode("cp1251"))
