"""A trial: a sample is prepared in a temporary folder by the code of prepare, and its cost is measured."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from preprocess.config import PrepareConfig, TokenizerConfig
from preprocess.corpus.sampling.passes import Passed, run_passes
from preprocess.corpus.sampling.reading import FileSample
from preprocess.corpus.sampling.summary import text_bytes
from preprocess.corpus.sampling.vocabulary import Trained, trained_on
from preprocess.files.storage import join
from preprocess.files.temporary import temporary_folder
from preprocess.reading.block import Block
from preprocess.shards.format import token_dtype
from preprocess.text.cleaning import Cleaner
from preprocess.tokenizers.load import cached_tokenizer
from preprocess.work.folder import part_file

WARM_UP_DOCUMENTS = 200
"""Documents that are prepared before the trial, because the first ones also load tables."""


@dataclass(frozen=True)
class Costs:
    """The cost of preparing some documents.

    Attributes:
        text_bytes: UTF-8 bytes of the documents, as they were read.
        documents: number of the documents.
        tokens: number of tokens of the final tokenizer, duplicates included.
        kept_tokens: share of the tokens that are not in duplicates or near-duplicates.
        first_seconds: CPU seconds of the first pass, without reading.
        rest_seconds: CPU seconds of deduplication and the last pass.
        work_bytes: bytes of the unfinished work, without the token ids.
        result_bytes: bytes of the shards, without the token ids.
        has_links: True if token ids of which nothing is dropped become shards by a hard link.
        made: the tokenizer.
    """

    text_bytes: int
    documents: int
    tokens: float
    kept_tokens: float
    first_seconds: float
    rest_seconds: float
    work_bytes: int
    result_bytes: int
    has_links: bool
    made: Trained


def run_trial(
    samples: Sequence[FileSample],
    config: PrepareConfig,
    tokenizer: TokenizerConfig,
    finished: tuple[str, str] | None,
    seed: int,
    wanted: int,
) -> Costs | None:
    """Prepare a part of a sample in a temporary folder, and return what it cost.

    Args:
        samples: the sample; the documents of added files are left out.
        config: settings of prepare.
        tokenizer: settings of the tokenizer.
        finished: folder and content hash of the tokenizer; None if there is none yet, so that one is
            trained on the sample.
        seed: seed of the choice of documents.
        wanted: UTF-8 bytes of the documents, approximately.

    Returns:
        None if the sample has no text.

    Raises:
        UserError: the tokenizer cannot be trained or read.
    """
    blocks = _chosen(samples, wanted, seed)
    texts = [text for group in blocks.values() for block in group for text in block.documents]
    random.Random(seed).shuffle(texts)
    cleaned = [text for text in Cleaner(config.cleaning).clean_batch(texts) if text]
    if not cleaned:
        return None
    with temporary_folder("biloom-look-") as folder:
        if finished:
            place, made = finished, Trained(cached_tokenizer(*finished))
        else:
            made = trained_on(cleaned, tokenizer)
            # The folder's name is new, so no other tokenizer is cached under it.
            place = join(folder, "tokenizer"), ""
            made.tokenizer.save(place[0])
        few = {number: [_cut(group[0])] for number, group in blocks.items()}
        run_passes(join(folder, "warm-up"), config, place, few)
        passed = run_passes(join(folder, "trial"), config, place, blocks)
        return _costs(passed, blocks, made)


def _costs(passed: Passed, blocks: Mapping[int, Sequence[Block]], made: Trained) -> Costs:
    """Return the cost of blocks, from the files that were written."""
    parts, work = _sizes(part_file(passed.work, ""), ".bin"), _sizes(passed.work)
    shards, result = _sizes(passed.output, ".bin"), _sizes(passed.output)
    token_bytes, kept = sum(parts.values()), sum(shards.values())
    texts = [text for group in blocks.values() for block in group for text in block.documents]
    return Costs(
        text_bytes=sum(map(text_bytes, texts)),
        documents=len(texts),
        tokens=made.factor * token_bytes / token_dtype(made.tokenizer.vocabulary).itemsize,
        kept_tokens=kept / max(1, token_bytes),
        first_seconds=passed.first_seconds,
        rest_seconds=passed.rest_seconds,
        work_bytes=sum(work.values()) - token_bytes,
        result_bytes=sum(result.values()) - kept,
        has_links=bool(parts.keys() & shards.keys()),
        made=made,
    )


def _sizes(folder: str, suffix: str = "") -> dict[int, int]:
    """Return the sizes of the files below a folder by their numbers on the disk."""
    files = [file for file in Path(folder).rglob(f"*{suffix}") if file.is_file()]
    return {file.stat().st_ino: file.stat().st_size for file in files}


def _chosen(samples: Sequence[FileSample], wanted: int, seed: int) -> dict[int, list[Block]]:
    """Return blocks from all parts of a sample by source, each source with its share of the text."""
    draw = random.Random(seed)
    rows = [
        (sample.places.source, block, sample.weight)
        for sample in samples
        for block in sample.blocks
        if block.documents and sample.weight
    ]
    # A block is chosen with a probability in proportion to its weight (Efraimidis and Spirakis,
    # "Weighted random sampling with a reservoir", 2006).
    order = sorted(range(len(rows)), key=lambda n: math.log(1 - draw.random()) / rows[n][2])
    order.reverse()
    kept: list[int] = []
    left = wanted
    for index in order:
        if left <= 0:
            break
        kept.append(index)
        left -= sum(map(text_bytes, rows[index][1].documents))
    blocks: dict[int, list[Block]] = {}
    for index in sorted(kept):
        source, block, _ = rows[index]
        blocks.setdefault(source, []).append(block)
    return blocks


def _cut(block: Block) -> Block:
    return replace(block, documents=block.documents[:WARM_UP_DOCUMENTS], rejected=[])
