"""Stage: perplexity of held-out text, over the full vocabulary."""

from typing import Any

from lightning_modules.evaluation import evaluate
from lightning_modules.pretrained import network_of_checkpoint
from pipeline.config import Config
from pipeline.console import Console
from pipeline.device import resolve_device
from pipeline.stage import Made, Place, StageError
from pipeline.stages import evaluation_corpus, stage_folder
from preprocess.fingerprint import fingerprint
from preprocess.manifest import read_manifest
from preprocess.token_shard import Corpus
from preprocess.token_stream import TokenStream, evaluation_windows

UNROLL = 64


def make(config: Config, place: Place, console: Console) -> Made:
    settings = config.evaluate
    corpus = Corpus.open(evaluation_corpus(config))
    folder = stage_folder(config, "train", settings.checkpoint)
    trained = read_manifest(folder, "train").details
    if corpus.manifest.details["tokenizer"] != trained["tokenizer"]:
        raise StageError(
            f"{corpus.folder}: this corpus was made by another tokenizer than the model's; "
            "prepare it with the model's own (prepare.tokenizer)"
        )
    totals = corpus.totals(settings.split)
    details: dict[str, Any] = {"split": settings.split, "tokens": 0}
    if not totals["documents"]:
        console.warn(
            f"nothing to evaluate: the {settings.split} split is empty (more text, or a larger "
            f"prepare.{settings.split}_fraction, fills it)"
        )
        return Made((), details, stats=details, content=fingerprint(details))
    network = network_of_checkpoint(folder, trained).to(resolve_device(config.train.device))
    stream = TokenStream(corpus.shards(settings.split), trained["boundary"])
    steps = -(-(len(stream) // settings.rows + 1) // UNROLL)
    with console.bar("evaluate", steps) as bar:

        def windows() -> Any:
            for step, window in enumerate(evaluation_windows(stream, settings.rows, UNROLL)):
                bar.update(step)
                yield window

        evaluation = evaluate(network, windows(), totals)
    details |= {**evaluation.figures(), "split": settings.split}
    assert evaluation.tokens == len(stream), "each token is counted once"
    _show(console, details)
    return Made((), details, stats=details, content=fingerprint(details))


def _show(console: Console, figures: dict[str, Any]) -> None:
    rows = [
        [
            f"perplexity a {unit}",
            *(f"{figures[f'{way}_{key}']:,.1f}" for way in ("forward", "backward", "average")),
        ]
        for unit, key in (("token", "perplexity"), ("word", "word_perplexity"))
    ]
    console.table(
        f"{figures['split']}, {figures['tokens']:,} tokens",
        ["", "forward", "backward", "average"],
        rows,
    )
    console.line(f"{figures['bits_per_byte']:.3f} bits a byte of text")
