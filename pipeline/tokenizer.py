"""Stage: a sample of the train split -> tokenizer."""

from collections.abc import Iterator

from pipeline.config import Config
from pipeline.console import Console, count
from pipeline.stage import Made, Place, StageError
from pipeline.stages import input_sources
from preprocess.config import SentencePieceConfig
from preprocess.corpus_sample import READ_BYTES, draw_units, read_train, thin, unit_bytes
from preprocess.manifest import FileRecord, hash_file
from preprocess.tokenizer import train_tokenizer
from preprocess.units import Unit, plan_units

WHOLE = 4
"""A corpus of up to that many times the sample is read whole, a larger one in drawn units."""


def make(config: Config, place: Place, console: Console) -> Made:
    sources, files = input_sources(config)
    units = plan_units(sources, files, config.prepare.unit_bytes)
    size = sum(map(unit_bytes, units))
    if not size:
        paths = ", ".join(path for source in sources for path in source.paths)
        raise StageError(f"{paths}: holds no document; give prepare.input some text")
    wanted = size
    if isinstance(config.tokenizer, SentencePieceConfig):
        wanted = config.tokenizer.sample_bytes
        units = draw_units(units, max(READ_BYTES, WHOLE * wanted), config.tokenizer.seed)
    read = sum(map(unit_bytes, units))
    figures = {"bytes": 0, "documents": 0}
    with console.bar("tokenizer", read) as bar:

        def texts() -> Iterator[str]:
            last: Unit | None = None
            passed = 0
            seed = getattr(config.tokenizer, "seed", 0)
            for unit, _, text, content in read_train(units, config.prepare):
                if unit is not last:
                    passed += unit_bytes(last) if last else 0
                    last = unit
                    bar.update(passed, "reading")
                if wanted >= read or thin(content, wanted / read, seed):
                    figures["bytes"] += len(text.encode())
                    figures["documents"] += 1
                    yield text
            bar.update(read, "learning")

        tokenizer = train_tokenizer(config.tokenizer, texts())
    names = tokenizer.save(place.folder)
    console.line(
        f"{tokenizer.vocabulary:,} ids ({tokenizer.kind}) of {count(figures['documents'])} "
        f"documents, {count(figures['bytes'])}B"
    )
    records = tuple(FileRecord(name, *hash_file(place.file(name))) for name in names)
    details = {"kind": tokenizer.kind, "vocabulary": tokenizer.vocabulary, "sample": figures}
    return Made(records, details, stats=details)
