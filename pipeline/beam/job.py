"""Run a Beam job with a progress bar, and stop it if it makes no progress.

An engine can wait forever: for a worker whose Python lacks Beam, for a worker that died when it
started, or for a job that has ended. Progress is measured by the units' records in the store, so it
is the same on every engine. If no record changes, the job is interrupted as by Ctrl-C, which is how
any engine can be stopped.
"""

import apache_beam as beam

from pipeline.beam.engine_output import LINE_CHARACTERS, EngineOutput
from pipeline.beam.engines import make_pipeline
from pipeline.beam.guard import Guard, exhausted_message, where_to_look
from pipeline.beam.requirements import RunnerError
from pipeline.beam.unit_bar import unit_bar
from pipeline.beam.worker_call import job_runs, reported, source_version, user_errors
from pipeline.config.runners import RunnerConfig
from pipeline.console import Console
from pipeline.exhaustion import exhausted, exhausted_in
from pipeline.progress import set_page
from pipeline.stopping import JobStopped
from preprocess.errors import JobError, UserError


class EngineFailed(RunnerError, JobError):  # noqa: N818
    """An engine outside this process failed; the message says why and where to look."""


class Stalled(JobError):  # noqa: N818
    """A job made no progress for `runner.stall_seconds`; the message says how far it had come."""


NOT_IMPORTED = ("No module named", "the name of a package of biloom")
"""What the error of a worker says that lacks biloom, or has other modules of the same names."""
WORKER_ENDED = "CANCELLED: client cancelled"
"""What Flink says if the process of a worker ended."""


def run_job(
    config: RunnerConfig,
    work: str,
    console: Console,
    name: str,
    total: int,
    units: int,
    steps: beam.PTransform,
    effort: int = 1,
) -> None:
    """Run the Beam job ``steps``.

    Args:
        config: the engine.
        work: folder of the units' records.
        console: where progress is shown.
        name: name shown at the progress bar.
        total: raw bytes to read.
        units: number of units.
        steps: transform from the pipeline to the numbers of the finished units.
        effort: time per byte relative to tokenising. The direct runner starts worker processes only if
            total x effort is large.

    Raises:
        RunnerError: the engine cannot run the job.
        JobError: memory, threads or another resource ran out.
        Stalled: no progress for `runner.stall_seconds`.
        UserError: workers reported user errors.
    """
    output = EngineOutput()
    guard = Guard(config, units, output)

    def found(page: str) -> None:
        set_page(page)
        console.line(f"the job's page: {page}")

    try:
        with (
            guard,
            user_errors(work),
            job_runs(work),
            unit_bar(work, console, name, total, units, guard.see),
            output.captured(),
            make_pipeline(config, total * effort, found) as pipeline,
        ):
            _ = pipeline | steps | "finished" >> beam.Map(int)
    except BaseException as error:
        # Of any type, because Beam replaces an interrupt in a worker's call by another error.
        if guard.interrupted:
            match guard.reason:
                case "finished":
                    return
                case "failed":
                    raise reported(work) or error from None
                case "exhausted":
                    raise JobError(guard.message) from None
                case "stalled":
                    raise Stalled("\n".join([guard.message, *_notes(error)])) from None
                case None:
                    raise _stopped(error) from None
        if isinstance(error, Exception) and not isinstance(error, UserError):
            # The error of a remote worker, which has other limits than this process.
            elsewhere = config.kind != "direct" and "Traceback" in str(error)
            if reason := exhausted_in(str(error), here=False) if elsewhere else exhausted(error):
                raise JobError(exhausted_message(config, reason)) from error
            if config.kind != "direct":
                _raise_engine_error(config, error)
            for line in output.lines:
                error.add_note(line)
        raise


def _stopped(error: BaseException) -> JobStopped:
    """Return the exception for a job that the user stopped, with the notes of ``error``."""
    stopped = JobStopped()
    for note in _notes(error):
        stopped.add_note(note)
    return stopped


def _notes(error: BaseException) -> list[str]:
    return getattr(error, "__notes__", [])


def _raise_engine_error(config: RunnerConfig, error: Exception) -> None:
    """Raise RunnerError if ``error`` comes from the engine or its workers' Python, not from biloom."""
    text = str(error)
    for words in NOT_IMPORTED:
        if words in text:
            raise RunnerError(
                f"a worker cannot import biloom ({_line_with(words, text)}); install biloom "
                f"{source_version()} with the extra 'beam' in the workers' Python"
            ) from error
    unreachable = "StatusCode.UNAVAILABLE" in text
    if unreachable or (isinstance(error, RuntimeError) and "Traceback" not in text):
        reason = _line_with("details =" if unreachable else "", text)
        advice = where_to_look(config)
        if WORKER_ENDED in text:
            advice = (
                "The process of a worker ended while it worked: memory ran out, or two TaskManagers share "
                f"a worker pool, and one stopped the worker of the other. {advice}"
            )
        raise EngineFailed(
            f"the engine could not run the job ({reason}). {advice}. Run the same command to resume"
        ) from error


def _line_with(words: str, text: str) -> str:
    lines = [line for line in text.splitlines() if words in line]
    return lines[-1].strip()[:LINE_CHARACTERS] if lines else words
