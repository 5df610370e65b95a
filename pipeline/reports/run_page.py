"""The report of a run as one page."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from pipeline.reports.corpus_page import document_bars, source_table, split_table
from pipeline.reports.html_page import cards, folded, framed, html_page, table
from pipeline.reports.perplexity_tables import (
    BAND_COLUMNS,
    BITS,
    NOT_DEFINED,
    Figures,
    band_rows,
    bits_per_byte,
    perplexity_rows,
    reasons,
    ways,
)
from pipeline.reports.svg_chart import Point, Series, chart, smooth
from preprocess.vectors.neighbours import Use, WordUses
from preprocess.vectors.word_sample import Snippet

DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Findings:
    """What the stages made: details of their manifests, rows of metrics.jsonl, uses of words."""

    config: str
    corpus: dict[str, Any]
    training: dict[str, Any]
    metrics: Sequence[dict[str, Any]]
    held_out: dict[str, Any]
    words: Sequence[WordUses]

    def curve(self, key: str) -> list[Point]:
        """(step, value) of a column of metrics.jsonl, where it is a number."""
        return [(row["step"], float(row[key])) for row in self.metrics if row.get(key) is not None]


def page(found: Findings) -> str:
    """The whole document; whatever comes from text, paths or settings is escaped."""
    training = found.training
    about = (
        f"{training['parameters']:,} parameters · {training['steps']:,} steps · "
        f"{training['tokens']:,} tokens · {training['passes']:.2f} passes over the corpus"
    )
    sections = (
        ("Held-out text", _held_out(found.held_out)),
        ("Words in use", _words(found.words)),
        ("Training", _training(found)),
        ("Corpus", _corpus(found.corpus)),
        ("Settings", _settings(found.config)),
    )
    return html_page("biloom: report of a run", "A bidirectional language model", about, sections)


def _held_out(figures: Figures) -> str:
    rows = perplexity_rows(figures)
    if not rows:
        return f"<p>The {escape(figures['split'])} split is empty: no perplexity.</p>"
    shown = ways(figures)
    first = [(row[-1], f"perplexity {row[0]}, {shown[-1]}") for row in rows]
    first.append((bits_per_byte(figures), BITS))
    first = [(value, name) for value, name in first if value != NOT_DEFINED]
    by_rank = ""
    if bands := band_rows(figures):
        heading = "<h3>By the target's rank in training</h3>"
        by_rank = heading + table([*BAND_COLUMNS, *shown], bands)
    about = f"{figures['tokens']:,} tokens of the {escape(figures['split'])} split"
    return (
        f'<p class="soft">{about}, every document\'s end included; full vocabulary.</p>'
        + cards(first)
        + table(["perplexity", *shown], rows)
        + by_rank
        + "".join(f"<p>{escape(reason)}</p>" for reason in reasons(figures))
    )


def _training(found: Findings) -> str:
    losses = {way: found.curve(f"loss_{way}") for way in DIRECTIONS}
    held_out = {way: found.curve(f"valid_{way}_perplexity") for way in DIRECTIONS}
    perplexity = [
        *(Series(f"{way}, batch", way, _exp(losses[way]), "faint") for way in DIRECTIONS),
        *(Series(way, way, _exp(smooth(losses[way]))) for way in DIRECTIONS),
        *(Series(f"{way}, held out", way, held_out[way], "dots") for way in DIRECTIONS),
    ]
    key = "".join(f'<span class="key {way}">{way}</span>' for way in DIRECTIONS if losses[way])
    first = framed(
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
        framed(title, chart(title, [Series(title, "other", found.curve(column))], 300, 180))
        for title, column in small
    )
    return f'{first}<div class="cards">{others}</div>'


def _exp(losses: Iterable[Point]) -> list[Point]:
    return [(step, math.exp(min(loss, 700.0))) for step, loss in losses]


def _corpus(corpus: dict[str, Any]) -> str:
    return split_table(corpus) + source_table(corpus) + document_bars(corpus)


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
    return folded("all, defaults included", f"<pre>{escape(config)}</pre>")
