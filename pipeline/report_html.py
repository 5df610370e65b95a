"""The report as one self-contained page: no script, no network, light and dark."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.svg_chart import Point, Series, chart, smooth
from preprocess.config import SPLITS
from preprocess.neighbours import Use, WordUses
from preprocess.word_sample import Snippet

DIRECTIONS = ("forward", "backward", "average")
SUMS = ("documents", "words", "tokens", "characters", "text_bytes")

STYLE = """
:root { color-scheme: light dark; --page: #fbfbfa; --card: #fff; --text: #1d2329; --soft: #66707a;
  --line: #e3e5e8; --forward: #2166c4; --backward: #d4651a; --other: #27825b; --mark: #fff0b8; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --card: #1c2024; --text: #e4e7ea;
  --soft: #98a2ac; --line: #31373d; --forward: #6ea8f5; --backward: #f0955a; --other: #62c496;
  --mark: #5b4a12; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 64rem; padding: 2rem 1.25rem 4rem; background: var(--page);
  color: var(--text); font: 15px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: .95rem; margin: 0 0 .4rem; font-weight: 600; }
p { margin: .3rem 0 .8rem; } .soft, figcaption, th { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: .8rem; }
.card, figure { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .9rem 1rem; margin: 0; }
.card b { display: block; font-size: 1.6rem; line-height: 1.3; }
figure { margin-bottom: .8rem; } svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 12px; } .grid { stroke: var(--line); }
polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
.faint { stroke-width: 1; opacity: .45; }
.forward { stroke: var(--forward); } .backward { stroke: var(--backward); }
.other { stroke: var(--other); } .dots { stroke-width: 2; fill: none; }
.dots.forward circle { r: 6px; }
.key::before { content: ""; display: inline-block; width: 1.1em; margin: 0 .35em .25em 0;
  border-top: 3px solid; }
.key.forward::before { border-color: var(--forward); }
.key.backward::before { border-color: var(--backward); } .key { margin-right: 1.2em; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th { font-weight: 500; text-align: start; } th, td { padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: end; font-variant-numeric: tabular-nums; }
.word { margin: 0 0 1.4rem; } .uses { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); margin-top: .6rem; }
.text { overflow-wrap: anywhere; } mark { background: var(--mark); color: inherit;
  border-radius: 3px; padding: 0 .15em; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; direction: ltr; } summary { cursor: pointer; }
"""


@dataclass(frozen=True)
class Findings:
    """What the stages made: details of their manifests, rows of metrics.jsonl, uses of words."""

    config: str
    corpus: dict[str, Any]
    training: dict[str, Any]
    metrics: Sequence[dict[str, Any]]
    held_out: dict[str, Any]
    words: Sequence[WordUses]

    def perplexities(self) -> list[list[str]]:
        """Rows of held-out perplexity, a token and a word; none where nothing was held out."""
        if not self.held_out["tokens"]:
            return []
        return [
            [f"a {unit}", *(figure(self.held_out[f"{way}_{key}"]) for way in DIRECTIONS)]
            for unit, key in (("token", "perplexity"), ("word", "word_perplexity"))
        ]

    def curve(self, key: str) -> list[Point]:
        """(step, value) of a column of metrics.jsonl."""
        return [(row["step"], float(row[key])) for row in self.metrics if key in row]


def figure(perplexity: float) -> str:
    """A perplexity to be read; that a word of text without spaces is beyond all bounds."""
    return f"{perplexity:,.1f}" if perplexity < 1e6 else f"{perplexity:.2g}"


def page(found: Findings) -> str:
    """The whole document; whatever comes from text, paths or settings is escaped."""
    training = found.training
    about = (
        f"{training['parameters']:,} parameters · {training['steps']:,} steps · "
        f"{training['tokens']:,} tokens · {training['passes']:.2f} passes over the corpus"
    )
    sections = (
        ("Held-out text", _held_out(found)),
        ("Words in use", _words(found.words)),
        ("Training", _training(found)),
        ("Corpus", _corpus(found.corpus)),
        ("Settings", _settings(found.config)),
    )
    body = "".join(f"<section><h2>{title}</h2>{content}</section>" for title, content in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        # Even if something were not escaped, it could load and run nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>biloom: report of a run</title><style>{STYLE}</style></head><body>"
        f'<h1>A bidirectional language model</h1><p class="soft">{about}</p>{body}</body></html>\n'
    )


def _held_out(found: Findings) -> str:
    held_out, rows = found.held_out, found.perplexities()
    if not rows:
        return f"<p>The {escape(held_out['split'])} split is empty: no perplexity.</p>"
    cards = (
        (figure(held_out["average_perplexity"]), "perplexity a token, average"),
        (figure(held_out["average_word_perplexity"]), "perplexity a word, average"),
        (f"{held_out['bits_per_byte']:.3f}", "bits a byte of text"),
    )
    shown = "".join(
        f'<div class="card"><b>{figure}</b><span class="soft">{name}</span></div>'
        for figure, name in cards
    )
    about = f"{held_out['tokens']:,} tokens of the {escape(held_out['split'])} split"
    return (
        f'<p class="soft">{about}, every document\'s end included; full vocabulary.</p>'
        f'<div class="cards">{shown}</div><p></p>' + _table(["perplexity", *DIRECTIONS], rows)
    )


def _training(found: Findings) -> str:
    ways = DIRECTIONS[:2]
    losses = {way: found.curve(f"loss_{way}") for way in ways}
    held_out = {way: found.curve(f"valid_{way}_perplexity") for way in ways}
    perplexity = [
        *(Series(f"{way}, batch", way, _exp(losses[way]), "faint") for way in ways),
        *(Series(way, way, _exp(smooth(losses[way]))) for way in ways),
        *(Series(f"{way}, held out", way, held_out[way], "dots") for way in ways),
    ]
    key = "".join(f'<span class="key {way}">{way}</span>' for way in ways)
    first = _figure(
        "Perplexity a token, by step",
        chart("Perplexity by step", perplexity, 960, 340, log=True),
        f"{key}thin: a batch; line: its moving average; circles: held-out text",
    )
    small = (
        ("Learning rate", "learning_rate"),
        ("Tokens a second", "tokens_per_second"),
        ("Norm of the gradient", "gradient_norm"),
    )
    others = "".join(
        _figure(title, chart(title, [Series(title, "other", found.curve(column))], 300, 180))
        for title, column in small
    )
    return f'{first}<div class="cards">{others}</div>'


def _exp(losses: Iterable[Point]) -> list[Point]:
    return [(step, math.exp(min(loss, 700.0))) for step, loss in losses]


def _figure(title: str, drawing: str, caption: str = "") -> str:
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{title}</h3>{drawing}{below}</figure>"


def _corpus(corpus: dict[str, Any]) -> str:
    columns = [name.replace("text_bytes", "bytes of text") for name in SUMS]
    splits = [
        [split, *(f"{corpus['splits'][split][key]:,}" for key in SUMS)]
        for split in SPLITS
        if corpus["splits"][split]["documents"]
    ]
    sources = [
        [source["name"], source["license"] or "", *(f"{source[key]:,}" for key in SUMS)]
        for source in corpus["sources"]
    ]
    documents = corpus["documents"]
    reasons = [
        [reason, f"{number:,}"]
        for reason, number in (
            ("read", documents["read"]),
            *((f"dropped: {why}", number) for why, number in documents["dropped"].items()),
            ("written", documents["written"]),
            ("written with bytes replaced that are not UTF-8", documents["replaced"]),
        )
    ]
    return (
        _table(["split", *columns], splits)
        + _table(["source", "licence", *columns], sources, text_columns=2)
        + _table(["documents", ""], reasons)
    )


def _words(words: Sequence[WordUses]) -> str:
    if not words:
        return "<p>No word is frequent enough in the vector cache to show its uses.</p>"
    about = (
        "Two uses of a word, each by its most typical place, and what is nearest to it in the top "
        "layer. In layer 0 the word has one vector whatever its use, as in word2vec. Cosines are "
        "of vectors less their mean; a neighbour stands with the use it is nearer to."
    )
    return f'<p class="soft">{about}</p>' + "".join(_word(word) for word in words)


def _word(word: WordUses) -> str:
    times = f"{word.occurrences:,} occurrences" if word.occurrences != 1 else "1 occurrence"
    heading = f'<h3><bdi>{escape(word.word)}</bdi> <span class="soft">{times}</span></h3>'
    if not word.uses:
        return f'<div class="word">{heading}<p>Too few to show its uses.</p></div>'
    listed = ", ".join(f"<bdi>{escape(one)}</bdi>" for one in word.static) or "no frequent word"
    uses = "".join(_use(use) for use in word.uses)
    return (
        f'<div class="word">{heading}<p>One vector (layer 0): near {listed}</p>'
        f'<div class="uses">{uses}</div></div>'
    )


def _use(use: Use) -> str:
    again = f"<p>{_snippet(use.again)}</p>" if use.again else ""
    rows = "".join(
        f"<tr><td><bdi>{escape(one.snippet.word)}</bdi></td>"
        f'<td class="number">{one.cosine:.2f}</td><td class="soft">{_snippet(one.snippet)}</td></tr>'
        for one in use.neighbours
    )
    return (
        f'<div class="card"><p>{_snippet(use.typical)}</p>{again}'
        f'<div class="scroll"><table><tr><th>near</th><th class="number">cosine</th><th>in</th></tr>'
        f"{rows}</table></div></div>"
    )


def _snippet(snippet: Snippet) -> str:
    before, word, after = map(escape, (snippet.before, snippet.word, snippet.after))
    return f'<span class="text"><bdi>{before}<mark>{word}</mark>{after}</bdi></span>'


def _settings(config: str) -> str:
    return (
        f"<details><summary>all, defaults included</summary><pre>{escape(config)}</pre></details>"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if n >= text_columns else "" for n in range(len(row))]
        return "".join(
            f"<{tag}{kind}>{escape(cell)}</{tag}>" for cell, kind in zip(row, kinds, strict=True)
        )

    lines = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{cells(header, "th")}</tr>{lines}</table></div><p></p>'
