"""Separate the words and the punctuation of English text by spaces, with the rules of spaCy.

    python benchmarks/separate_words.py INPUT OUTPUT

A line of INPUT becomes a line of OUTPUT, both UTF-8. It needs the extra `spacy`, and no model of it.
"""

import argparse

import spacy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("output")
    options = parser.parse_args()
    tokenize = spacy.blank("en").tokenizer
    with (
        open(options.input, encoding="utf-8", newline="\n") as source,
        open(options.output, "w", encoding="utf-8", newline="\n") as target,
    ):
        for line in source:
            words = [token.text for token in tokenize(line) if not token.is_space]
            target.write(" ".join(words) + "\n")


if __name__ == "__main__":
    main()
