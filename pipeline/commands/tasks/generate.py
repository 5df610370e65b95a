"""`biloom generate`: text sampled from a language model."""

from lightning_modules.evaluation.generation import Sampling, generate
from lightning_modules.vectors.pretrained import BiLM
from pipeline.training.device import resolve_device
from preprocess.errors import one_line


def print_generated(model: str, prompt: str, sampling: Sampling, number: int) -> None:
    """Print each text on a line of its own, as soon as it is generated.

    Line breaks and control characters are escaped.

    Args:
        model: folder or URL of a model.
        prompt: text to continue, or, backward, the end of the text.
        sampling: how tokens are drawn.
        number: number of texts.

    Raises:
        ManifestError: there is no finished model.
        GenerationError: a setting is out of range, or the model lacks the direction.
        UserError: the model has no output layer.
    """
    found = BiLM.from_pretrained(model).to(resolve_device("auto"))
    for one in generate(found, prompt, sampling, number):
        print(one_line(one.text), flush=True)
