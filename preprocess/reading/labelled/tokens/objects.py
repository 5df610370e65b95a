"""Sentences in JSON: tokens with tags, or a text with spans."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from preprocess.errors import UserError, one_line
from preprocess.reading.formats.fields import MISSING, value_of
from preprocess.reading.labelled.columns import listed
from preprocess.reading.labelled.counting import Counting
from preprocess.reading.labelled.examples import SpanAside, TaggedSentence
from preprocess.reading.labelled.labels import text_problem
from preprocess.reading.labelled.options import TaggedOptions
from preprocess.reading.labelled.rows import INVALID, unused_note
from preprocess.reading.labelled.tokens.alignment import align, locate
from preprocess.reading.labelled.tokens.conll import Tagged, token_problem
from preprocess.reading.labelled.tokens.cutting import Cut, choose_cut, cut_text

TOKENS = ("tokens", "words", "token")
TAGS = ("tags", "ner_tags", "ner", "labels", "pos_tags", "upos", "tag")
SPANS = ("spans", "entities", "labels", "label")
_SAMPLE = 2000
_UNITS = {"UTF-8": "bytes of UTF-8", "UTF-16": "units of UTF-16, as JavaScript and Java do"}
_CUTS = {"words": "words and signs", "spaces": "words at spaces", "characters": "characters"}


@dataclass(frozen=True)
class Fields:
    """The fields of the objects of a file; None for those that they do not have.

    Attributes:
        tokens: lists of tokens.
        tags: lists of tags.
        text: the text.
        spans: lists of spans.
        cut: how the text is cut, if there are no tokens.
    """

    tokens: str | None
    tags: str | None
    text: str | None
    spans: str | None
    cut: Cut

    def columns(self) -> dict[str, str]:
        """Return the fields for `Reading.columns`."""
        found = {"tokens": self.tokens, "tags": self.tags, "text": self.text, "spans": self.spans}
        shown = {role: f"'{one_line(name)}'" for role, name in found.items() if name}
        return shown if self.tokens else shown | {"cut into": _CUTS[self.cut]}


def find_fields(
    path: str, sample: Sequence[object], options: TaggedOptions, with_tags: bool
) -> Fields:
    """Return the fields of objects: as set, or by their names and what they hold.

    Raises:
        UserError: a field that is set does not exist, or none holds tokens, texts, tags or spans.
    """
    objects = [item for item in sample if isinstance(item, dict)]
    names = list(dict.fromkeys(str(key) for item in objects for key in item))

    def find(
        key: str, option: str | None, known: Sequence[str], kinds: tuple[type, ...]
    ) -> str | None:
        for name in (option,) if option else known:
            values = [value_of(item, name, MISSING) for item in objects]
            if any(isinstance(value, kinds) for value in values):
                return name
        # A field of texts is not needed beside tokens.
        absent = all(value_of(item, option or "", MISSING) is MISSING for item in objects)
        if key == "text" and absent:
            return None
        if option and absent:
            raise UserError(
                f"{one_line(path)}: there is no field '{one_line(option)}'; set {key} to one of "
                f"{listed(names)}"
            )
        return option

    tokens = find("tokens", options.tokens, TOKENS, (list,))
    text = find("text", options.text, (), (str,))
    tags = find("tags", options.tags, TAGS, (list,)) if tokens and with_tags else None
    spans = find("spans", options.spans, SPANS, (list,)) if with_tags and not tags else None
    if tokens is None and text is None:
        raise UserError(
            f"{one_line(path)}: no field holds tokens or a text; set tokens or text to one of "
            f"{listed(names)}"
        )
    if with_tags and tags is None and spans is None:
        raise UserError(
            f"{one_line(path)}: no field holds tags or spans; set tags (with tokens) or spans (with "
            f"text) to one of {listed(names)}"
        )
    cut = options.split
    if cut == "auto":
        texts = [value_of(item, text) for item in objects] if text else []
        cut = choose_cut([value for value in texts if isinstance(value, str)])
    return Fields(tokens, tags, text, spans, cut)


class ObjectReader:
    """Reads sentences of objects, and keeps spans that do not fit.

    Args:
        fields: the fields.
    """

    def __init__(self, fields: Fields) -> None:
        self._fields = fields
        self._longer = 0
        self._units: Counter[str] = Counter()
        self.aside: list[SpanAside] = []

    def read(self, record: object, place: str) -> TaggedSentence | str:
        """Return the sentence of a record, or why it cannot be used."""
        if record is INVALID:
            return "invalid JSON"
        if not isinstance(record, dict):
            return "not an object"
        fields = self._fields
        text = value_of(record, fields.text) if fields.text else None
        tokens: list[str] = []
        offsets: Sequence[tuple[int, int]] = ()
        if fields.tokens:
            listed_tokens = value_of(record, fields.tokens)
            if not isinstance(listed_tokens, list):
                return "no tokens"
            found = [item.get("text") if isinstance(item, dict) else item for item in listed_tokens]
            tokens = [token for token in found if isinstance(token, str)]
            if len(tokens) < len(found):
                return "a token is not a string"
            if isinstance(text, str):
                offsets = locate(tokens, text) or ()
                if not offsets and fields.spans:
                    return "the tokens are not those of the text"
        elif problem := text_problem(text):
            return problem
        if not fields.tokens:
            assert isinstance(text, str)
            offsets = cut_text(text, fields.cut)
            tokens = [text[start:end] for start, end in offsets]
        if not tokens:
            return "no tokens"
        tags = self._tags(record, tokens, text, offsets, place)
        if isinstance(tags, str):
            return tags
        for token, tag in zip(tokens, tags or ["O"] * len(tokens), strict=True):
            if problem := token_problem(token, tag):
                return problem
        own = text if isinstance(text, str) and offsets else None
        is_cut = not fields.tokens
        return TaggedSentence(tuple(tokens), tuple(tags), place, own, tuple(offsets), is_cut=is_cut)

    def _tags(
        self,
        record: dict[str, object],
        tokens: Sequence[str],
        text: object,
        offsets: Sequence[tuple[int, int]],
        place: str,
    ) -> Sequence[str] | str:
        fields = self._fields
        if fields.tags:
            tags = value_of(record, fields.tags)
            if not isinstance(tags, list):
                return "no tags"
            if not all(isinstance(tag, str | int) and not isinstance(tag, bool) for tag in tags):
                return "a tag is not a string"
            if len(tags) != len(tokens):
                return "tokens and tags differ in number"
            return [str(tag) for tag in tags]
        if not fields.spans:
            return ()
        spans = value_of(record, fields.spans)
        if not isinstance(spans, list):
            return "no spans"
        if isinstance(text, str):
            found = align(spans, text, offsets, place)
        else:
            # Without a text, spans count tokens: as if each token were one character.
            found = align(spans, "x" * len(tokens), [(i, i + 1) for i in range(len(tokens))], place)
        self.aside += found.aside
        self._longer += found.longer
        self._units += found.units
        return found.tags

    def notes(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return notes about what was read; ``names`` are all fields of the file."""
        fields = self._fields
        used = (fields.tokens, fields.tags, fields.text, fields.spans)
        notes = unused_note([name for name in names if name not in used])
        if fields.spans and not fields.text:
            notes += ("without a text, spans count tokens; the end is the token after the last",)
        if 2 * self._longer > len(self.aside):
            notes += (
                f"spans that would fit if their end were the last character: {self._longer:,}; the end "
                "must be the character after it",
            )
        for encoding, count in self._units.most_common(1):
            if 2 * count > len(self.aside):
                notes += (
                    f"spans that would fit if they counted {_UNITS[encoding]}: {count:,}; they must count "
                    "characters",
                )
        return notes


def read_objects(
    path: str, how: str, records: Sequence[tuple[str, object]], options: TaggedOptions
) -> Tagged:
    """Return the sentences of records with a place each; ``how`` is the format of the file."""
    fields = find_fields(path, [record for _, record in records[:_SAMPLE]], options, True)
    reader = ObjectReader(fields)
    counting = Counting[TaggedSentence]()
    for place, record in records:
        sentence = reader.read(record, place)
        if isinstance(sentence, str):
            counting.drop(sentence, place)
        else:
            counting.add(sentence)
    names = dict.fromkeys(
        str(key) for _, record in records[:_SAMPLE] if isinstance(record, dict) for key in record
    )
    return Tagged(how, counting, fields.columns(), reader.notes(names), tuple(reader.aside))
