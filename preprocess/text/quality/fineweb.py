"""Rules that FineWeb adds to those of Gopher and C4.

Source: Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale"
(https://arxiv.org/abs/2406.17557), section 3.6, "Developing additional heuristic filters". Reference
implementation: ``fineweb_quality_filter.py`` of datatrove, in which the limit of duplicate characters
is 0.01 where the paper has 0.1, and which has a fourth rule, of line breaks per word.

Terminal punctuation is Unicode's property Sentence_Terminal, as in datatrove.
"""

from collections.abc import Iterator

from preprocess.text.quality.character_kinds import TERMINAL, UNPUNCTUATED
from preprocess.text.quality.config import FineWebConfig
from preprocess.text.quality.gopher_repetition import repeated_characters
from preprocess.text.quality.layout import Layout, Mask


def fineweb(layout: Layout, remain: Mask, config: FineWebConfig) -> Iterator[tuple[str, Mask]]:
    """Yield each rule's reason, and which texts it drops, bool, shape (texts,).

    Blank lines and texts without lines are ignored. The rule of terminal punctuation is not applied to
    text in scripts without a full stop, such as Thai.

    Args:
        layout: the texts.
        remain: which lines were not removed, shape (lines,). Only these are measured.
        config: the rules.
    """
    lines = layout.lines.chosen(remain)
    if config.min_punctuated_lines is not None:
        punctuated = (layout.kinds[lines.ends - 1] & TERMINAL) != 0
        few = lines.shares(punctuated) < config.min_punctuated_lines
        few &= (lines.numbers > 0) & ~layout.has_mostly(UNPUNCTUATED, lines)
        yield "fineweb_punctuated_lines", few
    if config.max_short_lines is not None:
        short = lines.shares(lines.lengths <= config.short_line)
        yield "fineweb_short_lines", short > config.max_short_lines
    if config.max_duplicate_line_characters is not None:
        share = repeated_characters(lines, lines.repeats(layout.line_hashes[remain]))
        yield "fineweb_duplicate_line_characters", share > config.max_duplicate_line_characters
