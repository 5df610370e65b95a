"""The message says what can be done about each kind of model."""

from lightning_modules.training.weights.other_tokenizer import other_tokenizer


def test_a_model_of_a_run_is_used_with_the_tokenizer_of_that_run() -> None:
    assert other_tokenizer("train.init_from: m", "abc", "its vectors do not fit") == (
        "train.init_from: m was trained with another tokenizer than this corpus has, so its vectors do not "
        "fit; prepare the corpus with the model's tokenizer: set prepare.tokenizer to the tokenizer folder "
        "of the run that trained the model (a model folder is not accepted there)"
    )


def test_a_model_without_a_tokenizer_of_its_own_is_replaced() -> None:
    assert other_tokenizer("train.init_from: m", "", "its vectors do not fit") == (
        "train.init_from: m has a vocabulary that no corpus can have, because it was cut (`biloom shrink "
        "--vocabulary`, export.vocabulary) or imported, so its vectors do not fit; name a model that `biloom "
        "train` trained and whose vocabulary is whole, such as the one that this model was made from"
    )
