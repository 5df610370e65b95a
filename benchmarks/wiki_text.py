"""Quality and speed of the plain text of wikitext.

The pages are made here, so that their running text is known: links, emphasis, headings, lists,
templates, infoboxes, references, tables, files and categories. mwparserfromhell is compared if it is
installed, as it is and without the links of files and categories.

    python benchmarks/wiki_text.py [--pages 200] [--seed 1]

The last line is a JSON object.
"""

import argparse
import importlib.util
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from preprocess.reading.web.wikitext import plain_text

WORDS = [
    "river",
    "town",
    "people",
    "said",
    "year",
    "work",
    "house",
    "small",
    "water",
    "light",
    "road",
    "winter",
    "school",
    "market",
    "because",
    "several",
    "often",
    "became",
    "under",
    "history",
    "local",
    "bridge",
    "after",
    "open",
    "music",
    "paper",
    "story",
    "evening",
]


class Page:
    """Makes a page; ``text`` has its running text."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self.text: list[str] = []

    def words(self, fewest: int, most: int) -> list[str]:
        return self.random.choices(WORDS, k=self.random.randint(fewest, most))

    def running(self, fewest: int, most: int) -> str:
        """Return wikitext of words, which are added to the running text."""
        pieces: list[str] = []
        for word in self.words(fewest, most):
            self.text.append(word)
            kind = self.random.random()
            if kind < 0.06:
                pieces.append(f"[[{self.random.choice(WORDS)} (x)|{word}]]")
            elif kind < 0.1:
                pieces.append(f"[[{word}]]")
            elif kind < 0.13:
                pieces.append(f"'''{word}'''")
            elif kind < 0.15:
                pieces.append(f"{word}<ref name=a>{{{{cite web|url=http://x|title=no}}}}</ref>")
            elif kind < 0.16:
                pieces.append(f"[http://example.org/no {word}]")
            elif kind < 0.17:
                pieces.append(f"{word} {{{{citation needed|date=no}}}}")
            else:
                pieces.append(word)
        return " ".join(pieces)

    def make(self) -> str:
        parts = ["{{Infobox place\n| name = no\n| map = {{map|{{no}}|1}}\n}}", self.running(30, 80)]
        for _ in range(self.random.randint(2, 6)):
            parts.append(f"== {self.running(2, 4)} ==\n{self.running(40, 120)}\n")
            kind = self.random.random()
            if kind < 0.3:
                parts.append("\n".join(f"* {self.running(5, 12)}" for _ in range(4)))
            elif kind < 0.6:
                rows = "\n|-\n".join("| no || {{no}}" for _ in range(5))
                parts.append(f'{{| class="wikitable"\n{rows}\n|}}')
            else:
                parts.append("[[File:a.jpg|thumb|no [[no]] {{no}}]]")
        parts.append("{{Reflist}}\n[[Category:no]]\n[[Category:no]]")
        return "\n\n".join(parts)


def extractors() -> dict[str, Callable[[str], str]]:
    found: dict[str, Callable[[str], str]] = {"biloom": plain_text}
    if importlib.util.find_spec("mwparserfromhell"):
        parser: Any = importlib.import_module("mwparserfromhell")

        def without_files(text: str) -> str:
            code = parser.parse(text)
            for node in [
                *(n for n in code.filter_wikilinks() if ":" in str(n.title)),
                *code.filter_tags(matches=lambda n: n.tag in ("ref", "table")),
            ]:
                if code.contains(node):
                    code.remove(node)
            return str(code.strip_code())

        found["mwparserfromhell"] = lambda text: str(parser.parse(text).strip_code())
        found["mwparserfromhell without files, references and tables"] = without_files
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="Quality and speed of the plain text of wikitext.")
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    pages = [Page(f"{arguments.seed} {i}") for i in range(arguments.pages)]
    made = [(page.make(), Counter(page.text)) for page in pages]
    size = sum(len(text) for text, _ in made)
    result: dict[str, Any] = {}
    for name, extract in extractors().items():
        begin = time.process_time()
        texts = [extract(text) for text, _ in made]
        seconds = time.process_time() - begin
        same = found = wanted = 0
        for (_, truth), text in zip(made, texts, strict=True):
            words = Counter(text.split())
            same += (truth & words).total()
            found += words.total()
            wanted += truth.total()
        result[name] = {
            "precision": round(same / found, 4),
            "recall": round(same / wanted, 4),
            "mb_wikitext_per_cpu_second": round(size / 1e6 / seconds, 2),
        }
        print(f"{name}: {result[name]}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
