"""Settings of `biloom explain`. Imports no torch."""

from typing import Literal

from pydantic import Field

from preprocess.reading.labelled.options import LabelledTextOptions


class ExplainConfig(LabelledTextOptions):
    """`biloom explain`: why a task predicts what it does, or what surprises a language model."""

    method: Literal["integrated_gradients", "gradient_x_input", "occlusion"] = Field(
        "integrated_gradients",
        description="how a task is explained; integrated_gradients: the mean gradient from zero vectors to the "
        "text, times the text's vectors; gradient_x_input: the gradient at the text, times them; "
        "occlusion: the fall of the score without a word",
    )
    for_label: str | None = Field(
        None, description="the label of a task to explain; null: the predicted one"
    )
    by: Literal["auto", "word", "token"] = Field(
        "auto",
        description="what gets a value; auto: words, or tokens if the text has no spaces between words",
    )
    scale: Literal["bits", "nats"] = Field(
        "bits", description="unit of the surprise of a language model"
    )
    most_tokens: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="tokens of a text that a task is explained for; a longer text is cut, and told",
    )
    output: Literal["text", "jsonl"] = Field(
        "text", description="text: coloured on a terminal; jsonl: an object for each text"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where to compute; auto: a GPU if there is one, otherwise the CPU"
    )

    @property
    def reading(self) -> LabelledTextOptions:
        """How a file is read."""
        names = LabelledTextOptions.model_fields
        return LabelledTextOptions(**{name: getattr(self, name) for name in names})

    def reading_like(self, trained: LabelledTextOptions) -> LabelledTextOptions:
        """How a file is read: its columns as in training, if these settings do not name them."""
        own = {
            k: getattr(self, k)
            for k in LabelledTextOptions.model_fields
            if k in self.model_fields_set
        }
        # The file may have another format than the training file.
        kept = {name: getattr(trained, name) for name in ("text", "pair", "separator")}
        return LabelledTextOptions(**{**kept, **own})
