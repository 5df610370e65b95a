"""The sample of the corpus that the embed stage embeds if no texts are named."""

import json
from typing import Any

from pipeline.config.schema import Config
from pipeline.console import Console
from pipeline.lifecycle.inputs import input_sources
from pipeline.lifecycle.stage import StageError, StageFolder
from pipeline.phases import phase
from preprocess.config import Source
from preprocess.files import storage
from preprocess.reading.units import plan_units
from preprocess.tokenizers.sample import draw_documents
from preprocess.work import folder
from preprocess.work.records import check_sealed, seal, write_record


def draw_sample(config: Config, place: StageFolder, console: Console) -> Source:
    """Draw documents from the corpus by the seed, and return the file that holds them."""
    path, read = folder.sample_file(place.work), folder.sample_inputs_file(place.work)
    source = Source(name="sample", path=path, format="jsonl")
    # Version 0.1 wrote the sample without a record of what was read for it.
    if storage.exists(path) and storage.exists(read):
        check_sealed(path)
    else:
        sources, files, _ = input_sources(config, console)
        units = plan_units(sources, files, config.prepare.unit_bytes)
        seed = config.embed.seed
        inputs: list[dict[str, Any]] = []
        with phase("sampling documents"):
            texts = draw_documents(units, config.prepare, config.embed.sample, seed, inputs=inputs)
        if not texts:
            raise StageError("the corpus has no training text to sample; set embed.input")
        write_record(read, inputs)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        storage.write_bytes(path, lines.encode())
        seal(path)
        console.line(f"sampled {len(texts):,} documents of the corpus")
    return source
