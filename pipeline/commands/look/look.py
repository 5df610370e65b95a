"""`biloom look`: what an input contains, and what it costs to prepare it."""

import json

from rich.console import Console as RichConsole

from pipeline.commands.look.answer import answer_of
from pipeline.commands.look.request import config_of
from pipeline.commands.look.sampled import (
    TRIAL_BYTES,
    estimate_stages,
    finished_tokenizer,
    take_sample,
)
from pipeline.commands.look.tables import show
from pipeline.console import Console
from pipeline.lifecycle.inputs import no_documents, show_left_out, survey_all
from preprocess.corpus.sampling.choice import SampleSize
from preprocess.errors import UserError

SHOWN_PATHS = 5
"""Inputs that the heading names."""


def look(words: list[str], seed: int, as_json: bool) -> int:
    """Print what the input of a command line contains; return 0.

    Args:
        words: inputs, configs and settings.
        seed: seed of the sample.
        as_json: print one JSON object instead of tables.

    Raises:
        UserError: the settings have mistakes, nothing matches an input, or no file has any bytes.
    """
    notes: list[str] = []
    config = config_of(words, notes)
    # On standard error, because other programs may read the object.
    console = Console(RichConsole(stderr=True, highlight=False)) if as_json else Console()
    for note in notes:
        console.warn(note)
    sources = config.prepare.sources
    if not as_json:
        console.stage("look", _named([path for source in sources for path in source.paths]))
    files, left_out = survey_all(sources)
    if not as_json:
        show_left_out(left_out, console)
    if not any(file.bytes for group in files for file in group):
        raise no_documents(config, "name files with text")
    with console.bar("look", 1) as bar:
        sample = take_sample(
            config, files, SampleSize(), seed, lambda done, all_: bar.update(done / all_, "reading")
        )
        bar.update(1, "measuring")
        stages = ["prepare"] if finished_tokenizer(config) else ["tokenizer", "prepare"]
        problem = ""
        try:
            estimates = estimate_stages(sample, stages, TRIAL_BYTES)
        except UserError as error:
            estimates, problem = {}, str(error)
    answer = answer_of(sample, left_out, estimates, problem)
    if as_json:
        print(json.dumps(answer.to_dict(), ensure_ascii=False))
    else:
        show(answer, console)
    return 0


def _named(paths: list[str]) -> str:
    more = f" and {len(paths) - SHOWN_PATHS:,} more" if len(paths) > SHOWN_PATHS else ""
    return ", ".join(paths[:SHOWN_PATHS]) + more
