"""What each word of `biloom look` is."""

from pathlib import Path

import pytest

from pipeline.commands.look.request import Words, config_of, sort_words
from pipeline.config.load import ConfigError
from preprocess.config import Source


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a=b.txt").write_text("x")
    Path("base").mkdir()
    Path("my.yaml").write_text("prepare: {input: raw/*.txt, valid_fraction: 0.2}\n")


def test_words_are_sorted_by_what_they_are() -> None:
    words = [
        *(
            "text/*.txt",
            "s3://bucket/x=1/*.gz",
            "zip://*.txt::a=b.zip",
            "a=b.txt",
            "./base",
            "./my.yml=1",
        ),
        *("my.yaml", "quickstart", "text_field=body", "cleaning.unicode=NFKC"),
        *("prepare.drop_empty=false", "runner.kind=direct", "typo=1"),
    ]
    assert sort_words(words) == Words(
        inputs=words[:6],
        configs=["my.yaml", "quickstart"],
        overrides=["prepare.drop_empty=false", "runner.kind=direct", "typo=1"],
        source=["text_field=body", "cleaning.unicode=NFKC"],
    )


def test_the_inputs_are_one_source_with_its_settings() -> None:
    notes: list[str] = []
    words = [
        "b.txt",
        "encoding=cp1252",
        "cleaning.unicode=NFKC",
        "a'\"[1].txt",
        "prepare.drop_empty=no",
    ]
    config = config_of(words, notes)
    [source] = config.prepare.sources
    assert source == Source(
        path=("b.txt", "a'\"[1].txt"), encoding="cp1252", cleaning={"unicode": "NFKC"}
    )
    assert config.prepare.drop_empty is False


def test_a_template_needs_no_quotes_of_yaml() -> None:
    for word in ("template={a}: {b}", 'template="{a}: {b}"'):
        [source] = config_of(["b.csv", word], []).prepare.sources
        assert source.template == "{a}: {b}"


def test_an_input_replaces_that_of_a_config() -> None:
    assert config_of(["my.yaml"], []).prepare.sources[0].paths == ("raw/*.txt",)
    config = config_of(["my.yaml", "other.txt"], [])
    assert config.prepare.sources[0].paths == ("other.txt",)
    assert config.prepare.valid_fraction == 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["my.yaml", "text_field=body"],
            "'text_field=body' is a setting of a source: name an input, or set text_field on a source "
            "of prepare.input",
        ),
        (["no.yaml"], "no config 'no.yaml': the shipped configs are"),
        (["a.txt", "typo.x=1"], "unknown key 'typo'"),
        (["a.txt", "format=xml"], "format"),
        (["a.txt", "format=text", "format=jsonl"], "'format' is set twice on the command line"),
        (["a.txt", "cleaning.unicod=NFC"], "did you mean 'unicode'?"),
        (["a.txt", "text_fild=body"], "unknown key 'text_fild'; did you mean 'text_field'?"),
    ],
)
def test_mistakes_are_told(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(words, [])
    assert message in str(caught.value)
