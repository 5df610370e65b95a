"""Settings of training with a teacher. Imports no torch."""

from pydantic import Field, model_validator

from preprocess.section import Section, runtime


class TeacherConfig(Section):
    """Training with the layers and the predictions of a trained model (Hinton et al. 2015)."""

    model: str | None = runtime(
        None,
        "model folder of the teacher, a path or URL, or a repository of the Hugging Face hub; must be set",
    )
    layers: float = Field(
        0.1,
        ge=0,
        description="weight of the loss on layers: the squared error of each of the teacher's layers, "
        "predicted from the student's, as a fraction of the squared size of the teacher's vector",
    )
    predictions: float = Field(
        1.0,
        ge=0,
        description="weight of the loss on predictions: the Kullback-Leibler divergence of the student's "
        "probabilities from the teacher's, in nats per token; must be 0 if the teacher has no output layer",
    )
    temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="logits of both models are divided by it in the loss on predictions, which is multiplied "
        "by its square",
    )

    @model_validator(mode="after")
    def _has_effect(self) -> "TeacherConfig":
        if not self.layers and not self.predictions:
            raise ValueError(
                "layers and predictions are both 0, so that the teacher has no effect; set one of them"
            )
        return self
