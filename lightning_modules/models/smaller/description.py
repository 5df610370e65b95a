"""What the card of a model and the console say about a model that was made smaller."""

from lightning_modules.models.smaller.changes import Changes


def described(changes: Changes) -> list[str]:
    """Return a sentence for each part that is smaller; the first one has the numbers of parameters."""
    before, after = changes.parameters
    lines = [f"Parameters: {after:,}, before {before:,}."]
    if changes.layers:
        of, kept = changes.layers
        same = "" if changes.input_rank else ", equal to those of the full model"
        lines.append(
            f"Recurrent layers: the lowest {kept} of {of}, so each token has {kept + 1} layers of vectors{same}."
        )
    if changes.vocabulary:
        of, kept = changes.vocabulary
        share = "not known, because the training corpus is not at hand"
        if changes.unknown_share is not None:
            share = f"{100 * changes.unknown_share:.3g} %"
        lines.append(
            f"Vocabulary: the first {kept:,} of {of:,} ids; share of the training corpus's tokens whose words "
            f"are dropped: {share}."
        )
    if changes.input_rank and changes.input_error is not None:
        of, kept = changes.input_rank
        lines.append(
            f"Input matrix: rank {kept} of {of}; relative error {changes.input_error:.3g}, weighted by "
            "1 / sqrt(frequency rank + 1)."
        )
    return lines


def section(changes: Changes) -> str:
    """Return the section of a model card, in Markdown."""
    lines = [f"- {line}" for line in described(changes)]
    note = "Any perplexities on this card are those of the full model."
    return "\n".join(["## Made smaller", "", *lines, "", note]) + "\n"
