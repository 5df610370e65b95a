"""What every page has in common: self-contained, no script, no network, light and dark."""

from collections.abc import Iterable, Sequence
from html import escape

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
h3, caption { font-size: .95rem; margin: 0 0 .4rem; font-weight: 600; text-align: start; }
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
.dots.forward circle { r: 6px; } .columns { fill: var(--other); }
.key::before { content: ""; display: inline-block; width: 1.1em; margin: 0 .35em .25em 0;
  border-top: 3px solid; }
.key.forward::before { border-color: var(--forward); }
.key.backward::before { border-color: var(--backward); } .key { margin-right: 1.2em; }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; width: 100%; }
th { font-weight: 500; text-align: start; } th, td { padding: .3rem .7rem .3rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; }
.number { text-align: end; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars { width: 50%; vertical-align: middle; }
.bar { background: var(--other); height: .7rem; min-width: 1px; border-radius: 2px; }
.word { margin: 0 0 1.4rem; } .uses { display: grid; gap: .8rem;
  grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); margin-top: .6rem; }
.text { overflow-wrap: anywhere; } mark { background: var(--mark); color: inherit;
  border-radius: 3px; padding: 0 .15em; font-weight: 600; }
pre { overflow-x: auto; font-size: .85rem; direction: ltr; } summary { cursor: pointer; }
"""


def html_page(title: str, heading: str, about: str, sections: Iterable[tuple[str, str]]) -> str:
    """The whole document of ``sections``, each a heading and its HTML; the rest is escaped here."""
    body = "".join(
        f"<section><h2>{escape(head)}</h2>{content}</section>" for head, content in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        # Even if something were not escaped, it could load and run nothing.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<h1>{escape(heading)}</h1><p class="soft">{escape(about)}</p>{body}</body></html>\n'
    )


def cards(figures: Iterable[tuple[str, str]]) -> str:
    """Figures to be seen first, each with what it is."""
    shown = "".join(
        f'<div class="card"><b>{escape(figure)}</b><span class="soft">{escape(name)}</span></div>'
        for figure, name in figures
    )
    return f'<div class="cards">{shown}</div><p></p>'


def framed(title: str, drawing: str, caption: str = "") -> str:
    """A drawing with a title above and HTML below."""
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(title)}</h3>{drawing}{below}</figure>"


def folded(summary: str, content: str) -> str:
    """HTML that is there when asked for."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """Rows of text whose cells after the first ``text_columns`` are numbers."""
    lines = "".join(f"<tr>{_cells(row, 'td', text_columns)}</tr>" for row in rows)
    return _scrolled(f"<tr>{_cells(header, 'th', text_columns)}</tr>{lines}")


def bar_table(title: str, header: Sequence[str], rows: Sequence[tuple[str, int, float]]) -> str:
    """A table that is its own chart: what, how many, the share of the whole, and that as a bar."""
    lines = "".join(
        f"<tr>{_cells([name, f'{number:,}', percent(share)], 'td', 1)}"
        f'<td class="bars">{_bar(share)}</td></tr>'
        for name, number, share in rows
    )
    head = f"<tr>{_cells(header, 'th', 1)}<th></th></tr>"
    return _scrolled(f"<caption>{escape(title)}</caption>{head}{lines}")


def percent(share: float) -> str:
    """A share to be read; a small one is not shown as none."""
    return f"{share:.1%}" if share >= 0.0005 or share <= 0 else "<0.1%"


def _bar(share: float) -> str:
    return f'<div class="bar" style="width:{share:.2%}"></div>' if share > 0 else ""


def _cells(row: Sequence[str], tag: str, text_columns: int) -> str:
    # A name is of any direction, and must not turn what stands beside it.
    return "".join(
        f'<{tag} class="number">{escape(cell)}</{tag}>'
        if n >= text_columns
        else f"<{tag}><bdi>{escape(cell)}</bdi></{tag}>"
        for n, cell in enumerate(row)
    )


def _scrolled(rows: str) -> str:
    return f'<div class="scroll"><table>{rows}</table></div>'
