"""What to do if a trained model reads other ids than the corpus has."""


def other_tokenizer(model: str, content: str, consequence: str) -> str:
    """Return the message about a model whose tokenizer is not that of the corpus.

    Args:
        model: the setting and the model.
        content: content hash of the model's tokenizer. It is empty if no tokenizer stage made its vocabulary,
            as with ids that were left out, and with imported models.
        consequence: why the model cannot be used then, as the end of "so ...".
    """
    if not content:
        return (
            f"{model} has a vocabulary that no corpus can have, because it was cut (`biloom shrink "
            f"--vocabulary`, export.vocabulary) or imported, so {consequence}; name a model that `biloom "
            "train` trained and whose vocabulary is whole, such as the one that this model was made from"
        )
    return (
        f"{model} was trained with another tokenizer than this corpus has, so {consequence}; prepare the "
        "corpus with the model's tokenizer: set prepare.tokenizer to the tokenizer folder of the run that "
        "trained the model (a model folder is not accepted there)"
    )
