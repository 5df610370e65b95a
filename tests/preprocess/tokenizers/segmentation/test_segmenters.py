"""Words of text without spaces, by segmenters of other libraries."""

import subprocess
import sys
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from preprocess.tokenizers.segmentation import segmenters
from preprocess.tokenizers.segmentation.segmenters import (
    LONGEST_WORDS,
    SegmenterError,
    check_segmenter,
    lacks_spaces,
    segmenter_version,
    word_spans,
)

CHINESE = "他在北京大学的银行 存钱。He paid 1,000 元!"


def words(text: str, segmenter: str | None = None) -> list[str]:
    return [text[start:end] for start, end in word_spans(text, segmenter)]


def install(monkeypatch: pytest.MonkeyPatch, name: str, module: Any) -> None:
    """Make ``name`` an installed package that is ``module``."""
    segmenters._load.cache_clear()
    monkeypatch.setattr(segmenters, "version", lambda _: "1.0")
    monkeypatch.setitem(sys.modules, name, module)


def test_words_without_a_segmenter_are_separated_by_whitespace() -> None:
    assert words(" a bc\u3000字\n") == ["a", "bc", "字"]
    assert words("") == []


def test_jieba_finds_chinese_words() -> None:
    assert words(CHINESE, "jieba") == [
        *("他", "在", "北京大学", "的", "银行", "存钱", "。", "He", "paid", "1", ",", "000", "元", "!"),
    ]  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet="银行存钱 的abc1,。\u3000\n\U00020000é", max_size=30))
def test_words_have_every_character_but_whitespace(text: str) -> None:
    spans = word_spans(text, "jieba")

    assert "".join(text[start:end] for start, end in spans) == "".join(text.split())
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(start < end for start, end in spans)


def test_jieba_is_silent_and_uses_no_shared_cache(tmp_path: Any) -> None:
    """Its dictionary must not come from a file that another user can write."""
    script = (
        "import warnings; warnings.simplefilter('error')\n"
        "from preprocess.tokenizers.segmentation.segmenters import word_spans\n"
        "import sys; print(len(word_spans('他在银行存钱', 'jieba')), 'jieba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip

    assert (done.stdout, done.stderr) == ("4 True\n", "")
    assert not list(tmp_path.iterdir())


def test_words_that_a_program_adds_to_jieba_change_nothing() -> None:
    import jieba

    before = words(CHINESE, "jieba")
    tokenizer, jieba.dt = jieba.dt, jieba.Tokenizer()
    try:
        jieba.dt.FREQ, jieba.dt.total = {"他在": 10**6, "他": 0}, 10**6
        jieba.dt.initialized = True
        assert words(CHINESE, "jieba") == before
    finally:
        jieba.dt = tokenizer


def test_fugashi_gives_the_surface_of_words(monkeypatch: pytest.MonkeyPatch) -> None:
    class Tagger:
        def __init__(self, options: str) -> None:
            assert options == "-Owakati"

        def __call__(self, text: str) -> list[Any]:
            return [SimpleNamespace(surface=one) for one in ("これ", "は", "ペン", "です")]

    module: Any = ModuleType("fugashi")
    module.Tagger = Tagger
    install(monkeypatch, "fugashi", module)
    assert words("これは  ペンです", "fugashi") == ["これ", "は", "ペン", "です"]


def test_fugashi_without_a_dictionary_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(options: str) -> None:
        raise RuntimeError("\nFailed initializing MeCab.\nmore")

    module: Any = ModuleType("fugashi")
    module.Tagger = fails
    install(monkeypatch, "fugashi", module)
    with pytest.raises(SegmenterError) as raised:
        word_spans("これは", "fugashi")
    assert str(raised.value) == (
        "segmenter: fugashi cannot be loaded (Failed initializing MeCab.); run pip install fugashi "
        "unidic-lite"
    )


def test_pythainlp_may_return_whitespace(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("pythainlp.tokenize")
    module.word_tokenize = lambda text, engine: ["ฉัน", "รัก", " ", "คุณ "]
    install(monkeypatch, "pythainlp", ModuleType("pythainlp"))
    install(monkeypatch, "pythainlp.tokenize", module)
    assert words("ฉันรัก คุณ !", "pythainlp") == ["ฉัน", "รัก", "คุณ", "!"]


def test_unknown_and_missing_segmenters_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SegmenterError) as unknown:
        check_segmenter("mecab")
    assert str(unknown.value) == "segmenter: 'mecab' is unknown; use jieba, fugashi, pythainlp"

    def absent(name: str) -> str:
        raise segmenters.PackageNotFoundError(name)

    assert segmenter_version("jieba").startswith("jieba 0.")
    monkeypatch.setattr(segmenters, "version", absent)
    for name, packages in [("jieba", "'biloom[segmenters]'"), ("fugashi", "fugashi unidic-lite")]:
        segmenters._load.cache_clear()
        with pytest.raises(SegmenterError) as missing:
            word_spans("字", name)
        assert str(missing.value) == (
            f"segmenter: {name} is not installed; run pip install {packages}, or pass each text as a "
            "list of words"
        )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("我在银行存钱", True),
        ("我 在 银行 存钱 。", False),
        ("这是一个句子。 这是另一个句子。", True),
        ("He lives in 北京 now", False),
        ("これはペンです", True),
        ("ฉันรักคุณ ฉันไปธนาคาร", True),
        ("ฉัน รัก คุณ", False),
        ("이것은 한국어 문장입니다", False),
        ("Donaudampfschifffahrtsgesellschaft", False),
        ("Rindfleischüberwachung", False),
        ("", False),
        ("我爱你", False),
        ("é" * 500_000, False),  # in linear time
    ],
)
def test_text_without_spaces_is_recognised(text: str, expected: bool) -> None:
    assert lacks_spaces(text) is expected


def test_each_script_has_letters() -> None:
    """Names must be those of Unicode's table."""
    for script in LONGEST_WORDS:
        assert segmenters._letters()[script].pattern != "[]"
