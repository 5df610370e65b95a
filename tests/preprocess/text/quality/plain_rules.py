"""The published rules once more, document by document and without arrays, to compare with.

They are written from the papers' text and share no code with the rules under test, except the set of
terminal marks.
"""

import re
from collections import Counter

from preprocess.text.quality.character_kinds import QUOTES, TERMINALS

BULLETS = ("•", "‣", "◦", "▪", "●", "-", "*")
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies",
            "use cookies")  # fmt: skip


def lines_of(text: str) -> list[str]:
    return [line.strip() for line in text.split("\n") if line.strip()]


def paragraphs_of(text: str) -> list[str]:
    return ["\n".join(lines_of(part)) for part in re.split(r"\n\s*\n", text) if part.strip()]


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def gopher_quality(text: str) -> set[str]:
    words, lines = text.split(), lines_of(text)
    proper = [word for word in words if any(map(str.isalnum, word))]
    mean = share(sum(map(str.isalnum, text)), len(proper))
    ends = [line.endswith(("...", "…")) for line in lines]
    rules = {
        "gopher_too_few_words": len(proper) < 50,
        "gopher_too_many_words": len(proper) > 100_000,
        "gopher_mean_word_length": not 3 <= mean <= 10,
        "gopher_hash_signs": text.count("#") > 0.1 * len(words),
        "gopher_ellipses": text.count("...") + text.count("…") > 0.1 * len(words),
        "gopher_bullet_lines": share(sum(line.startswith(BULLETS) for line in lines), len(lines)) > 0.9,
        "gopher_ellipsis_lines": share(sum(ends), len(lines)) > 0.3,
        "gopher_alphabetic_words": share(
            sum(any(map(str.isalpha, word)) for word in words), len(words)
        ) < 0.8,
        "gopher_stop_words": len(STOP_WORDS.intersection(words)) < 2,
    }  # fmt: skip
    return {reason for reason, drops in rules.items() if drops}


def repeated(pieces: list[str]) -> tuple[float, float]:
    """Share of pieces, and of their characters, that repeat an earlier one."""
    seen: set[str] = set()
    number = characters = 0
    for piece in pieces:
        if piece in seen:
            number, characters = number + 1, characters + len(piece)
        seen.add(piece)
    return share(number, len(pieces)), share(characters, sum(map(len, pieces)))


def gopher_repetition(text: str) -> set[str]:
    words = text.split()
    whole = sum(map(len, words))
    rules = {}
    for name, pieces in (("line", lines_of(text)), ("paragraph", paragraphs_of(text))):
        number, characters = repeated(pieces)
        rules[f"gopher_duplicate_{name}s"] = number > 0.3
        rules[f"gopher_duplicate_{name}_characters"] = characters > 0.2
    for size, limit in ((2, 0.2), (3, 0.18), (4, 0.16)):
        grams = Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1))
        most = max(grams.values(), default=0)
        longest = max((sum(map(len, g)) for g, n in grams.items() if n == most), default=0)
        rules[f"gopher_top_{size}_gram"] = most > 1 and most * longest > limit * whole
    for size, limit in zip(range(5, 11), (0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True):
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for at in range(len(words) - size + 1):
            gram = tuple(words[at : at + size])
            if gram in seen:
                covered.update(range(at, at + size))
            seen.add(gram)
        rules[f"gopher_duplicate_{size}_grams"] = (
            sum(len(words[at]) for at in covered) > limit * whole
        )
    return {reason for reason, drops in rules.items() if drops}


def fineweb(text: str) -> set[str]:
    lines = lines_of(text)
    punctuated = sum(line[-1] in TERMINALS for line in lines)
    rules = {
        "fineweb_punctuated_lines": share(punctuated, len(lines)) < 0.12,
        "fineweb_short_lines": share(sum(len(line) <= 30 for line in lines), len(lines)) > 0.67,
        "fineweb_duplicate_line_characters": repeated(lines)[1] > 0.1,
    }
    return {reason for reason, drops in rules.items() if drops and lines}


def c4(text: str) -> tuple[str | None, str, Counter[str]]:
    """Return why the document is dropped, what remains of it, and the removed lines by reason."""
    removed: Counter[str] = Counter()
    kept = []
    for line in lines_of(re.sub(r"\[\d*\]|\[edit\]|\[citation needed\]", "", text)):
        low = line.lower()
        if any(len(word) > 1000 for word in line.split()):
            removed["c4_long_word"] += 1
        elif line[-1] not in {*TERMINALS, *QUOTES} or line.endswith(("...", "…")):
            removed["c4_no_terminal_punctuation"] += 1
        elif len(line.split()) < 5:
            removed["c4_short_line"] += 1
        elif "javascript" in low:
            removed["c4_javascript"] += 1
        elif any(phrase in low for phrase in POLICIES):
            removed["c4_policy"] += 1
        else:
            kept.append(line)
    reason = None
    if any("lorem ipsum" in line.lower() for line in kept):
        reason = "c4_lorem_ipsum"
    elif any("{" in line or "}" in line for line in kept):
        reason = "c4_curly_bracket"
    elif sum(map(sentences, kept)) < 3:
        reason = "c4_too_few_sentences"
    return reason, "\n".join(kept), removed


def sentences(line: str) -> int:
    """A line is one sentence, and one more for each terminal mark before white space inside it."""
    quotes = re.escape(QUOTES)
    marks = re.escape("".join(TERMINALS))
    return 1 + len(re.findall(rf"[{marks}][{quotes}]?(?=\s)", line))
