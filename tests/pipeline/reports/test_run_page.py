import re
from dataclasses import replace
from html.parser import HTMLParser

from pipeline.reports.run_page import Findings, page
from preprocess.vectors.neighbours import Neighbour, Use, WordUses
from preprocess.vectors.word_sample import Snippet

EVIL = "<script>alert('x')</script>&\"שלום"


class Tags(HTMLParser):
    """The tags of a page, which must close what it opens."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def sums(documents):
    keys = ("documents", "words", "tokens", "characters", "text_bytes")
    return {key: documents * (n + 1) for n, key in enumerate(keys)}


def findings(word="bank"):
    snippet = Snippet(f"…{word} ", word, f" {word}…")
    use = Use(snippet, snippet, (Neighbour(0.875, snippet),))
    held_out = {"split": "valid", "tokens": 1234, "bits_per_byte": 1.5}
    for n, way in enumerate(("forward", "backward", "average")):
        held_out |= {f"{way}_perplexity": 90.0 + n, f"{way}_word_perplexity": 470.0 + n}
    batch = {"learning_rate": 0.1, "tokens_per_second": 9.0, "gradient_norm": 1.0}
    valid = {"valid_forward_perplexity": 99.0, "valid_backward_perplexity": 98.0}
    return Findings(
        config=f"run: # {word}\n",
        corpus={
            "splits": {"train": sums(36_033), "valid": sums(771), "test": sums(0)},
            "sources": [{"name": word, "license": "CC0", "share": 1.0, **sums(36_804)}],
            "documents": {
                "read": 41_336, "written": 36_804, "replaced": 7, "dropped": {"duplicate": 4_532},
            },
        },
        training={"parameters": 1_950_000, "steps": 20, "tokens": 12_800, "passes": 1.3},
        metrics=[
            {"step": 10, "loss_forward": 8.0, "loss_backward": float("nan"), **batch},
            {"step": 20, "loss_forward": 7.0, "loss_backward": 7.5, **batch},
            {"step": 20, **valid},
        ],
        held_out=held_out,
        words=[WordUses(word, 60, (use, use), (word,)), WordUses(f"{word}s", 1)],
    )  # fmt: skip


def test_page_shows_every_figure():
    shown = page(findings())
    Tags(shown)
    figures = ("36,033", "771", "41,336", "4,532", "CC0", "90.0", "472.0", "1.500", "0.88", "1.30")
    for text in (*figures, "1,950,000", "forward, held out, step 20: 99", "1 occurrence<"):
        assert text in shown
    assert shown.count("<svg") == 4


def test_page_needs_neither_a_network_nor_a_script():
    shown = page(findings())
    assert not {"script", "link", "img", "iframe"} & set(Tags(shown).found)
    assert not re.search(r"https?:|url\(|@import|src=", shown)
    assert "default-src 'none'" in shown
    assert "prefers-color-scheme: dark" in shown


def test_page_escapes_text_words_and_settings():
    shown = page(findings(EVIL))
    assert Tags(shown).found == Tags(page(findings())).found
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;שלום" in shown


def test_page_isolates_the_direction_of_text():
    shown = page(findings("שלום"))
    assert "<bdi>…שלום <mark>שלום</mark> שלום…</bdi>" in shown
    outside = re.sub(r"<bdi>.*?</bdi>", "", shown)
    # The settings hold nothing else beside it.
    assert set(re.findall("<[^<]*שלום", outside)) == {"<pre>run: # שלום"}


def test_page_without_held_out_text_words_or_metrics_says_so():
    shown = page(
        replace(findings(), held_out={"split": "valid", "tokens": 0}, words=[], metrics=[])
    )
    Tags(shown)
    assert "The valid split is empty: no perplexity." in shown
    assert "No word is frequent enough in the vector cache to show its uses." in shown


def test_page_shows_perplexity_by_rank_and_what_is_not_defined():
    band = {"first_rank": 1, "last_rank": 100, "forward_tokens": 1000}
    band |= {f"{way}_perplexity": 31.5 for way in ("forward", "backward", "average")}
    reason = "text without spaces between words; characters from space to space: <zh> 41"
    held_out = {
        **findings().held_out,
        **{f"{way}_word_perplexity": None for way in ("forward", "backward", "average")},
        **{f"{way}_character_perplexity": 4.25 for way in ("forward", "backward", "average")},
        "bands": [band],
        "not_defined": {"word": reason},
    }
    shown = page(replace(findings(), held_out=held_out))
    Tags(shown)
    for text in ("1 to 100", "1,000", "31.5", "a character", "4.2", "&lt;zh&gt; 41)"):
        assert text in shown
    assert "<b>not defined</b>" not in shown


def test_page_of_a_forward_model_has_one_column():
    held_out = {
        **findings().held_out,
        **{f"{way}_perplexity": None for way in ("backward", "average")},
        "not_defined": {"backward": "the model reads forward only"},
    }
    metrics = [{"step": 10, "loss_forward": 8.0, "gradient_norm": None}]
    shown = page(replace(findings(), held_out=held_out, metrics=metrics))
    Tags(shown)
    assert "perplexity a token, forward" in shown
    assert '<th class="number">backward</th>' not in shown
    assert "the model reads forward only" in shown
    assert 'class="key backward"' not in shown
