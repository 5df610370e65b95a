"""`biloom map` on the cache of a tiny model."""

import re
from pathlib import Path

import pytest

from pipeline.cli import main


@pytest.fixture(scope="module")
def cache(tiny, trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    corpus = tiny.root / "corpus.txt"
    tiny.run("embed", folder, f"embed.input={corpus}", f"embed.model={trained}/export")
    return folder / "embed"


def drawn(capsys, cache, page, *words):
    code = main(["map", str(cache), "--page", str(page), *words])
    shown = capsys.readouterr()
    html = page.read_text(encoding="utf-8") if page.exists() else ""
    return code, shown.out, shown.err, html


def test_uses_of_words_have_a_colour_each(cache, capsys, tmp_path):
    page = tmp_path / "map.html"
    code, out, _, html = drawn(capsys, cache, page, "--word", "kana", "--word", "kako")
    assert code == 0
    assert "uses of kana, kako" in out
    points = re.findall(r'<a class="p (\w+)".*?<mark>(\w+)</mark>', html)
    assert {word for _, word in points} == {"kana", "kako"}
    assert len({(colour, word) for colour, word in points}) == 2
    before = page.read_bytes()
    _, out, _, _ = drawn(capsys, cache, page, "--word", "KANA", "--word", "kana", "--word", "kako")
    assert "uses of kana, kako" in out, "a word is shown once"
    assert page.read_bytes() == before


def test_a_single_word_is_coloured_by_its_uses(cache, capsys, tmp_path):
    html = drawn(capsys, cache, tmp_path / "map.html", "--word", "kana")[3]
    assert "kana, use 1" in html
    assert "kana, use 2" in html


def test_points_are_sampled_and_told(cache, capsys, tmp_path):
    _, out, _, html = drawn(capsys, cache, tmp_path / "map.html", "--texts", "points=10")
    assert re.search(r"10 of \d+ texts", out)
    assert re.search(r"10 of \d+ texts", html)
    assert html.count('<a class="p') == 10


def test_texts_have_the_colours_of_their_labels(tiny, cache, capsys, tmp_path):
    lines = (tiny.root / "corpus.txt").read_text(encoding="utf-8").splitlines()
    labelled = sorted({line for line in lines if len(line) > 15})[:60]
    labels = tmp_path / "labels.tsv"
    rows = [f"{line}\t{'odd' if n % 2 else 'even'}\n" for n, line in enumerate(labelled)]
    labels.write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    code, out, _, html = drawn(capsys, cache, tmp_path / "map.html", "--texts", f"labels={labels}")
    assert code == 0
    assert re.search(r"\d+ of \d+ points have no label", out)
    keys = re.findall(r"<b><bdi>([^<]*)</bdi></b> <small>(\d+)</small>", html)
    assert dict(keys)["odd"] == dict(keys)["even"] == "30"


def test_words_are_chosen_or_named(cache, capsys, tmp_path):
    code, out, err, _ = drawn(capsys, cache, tmp_path / "map.html")
    assert (code == 0 and "words with distinct uses" in out) or "name words with --word" in err
    for words, told in (
        (["--word", "zzz"], "'zzz' does not occur"),
        (["--word", "a", "--texts"], "exclude each other"),
        (["--texts", "method=umap"], "must be one of 'pca', 'tsne', not 'umap'"),
        (["--texts", "layer=7"], "no layer 7"),
        (["--texts", f"labels={tmp_path}/none.tsv"], "none.tsv"),
    ):
        code, _, err, _ = drawn(capsys, cache, tmp_path / "other.html", *words)
        assert (code, told in err) == (2, True), err


@pytest.mark.filterwarnings("ignore")
def test_t_sne_draws_a_page(cache, capsys, tmp_path):
    pytest.importorskip("openTSNE")
    code, _, _, html = drawn(
        capsys, cache, tmp_path / "map.html", "--texts", "method=tsne", "points=40"
    )
    assert code == 0
    assert "t-SNE, perplexity 30, seed 1" in html
