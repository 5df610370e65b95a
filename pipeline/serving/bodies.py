"""Bodies of requests. Unknown fields are refused, so that no setting is ignored."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PlainValidator, ValidationError

from lightning_modules.vectors.selection import Pooling, Text
from pipeline.serving.errors import RequestError

LAYERS = ("all", "top", "mean", "concat")


def _text(value: Any, place: str) -> Text:
    if isinstance(value, str):
        if not value:
            raise RequestError(f"{place} is empty", "Empty")
        return value
    if isinstance(value, list) and all(isinstance(word, str) for word in value):
        if not any(map(str.strip, value)):
            raise RequestError(f"{place} is empty", "Empty")
        return value
    raise ValueError("must be a string, or a list of strings or of lists of words")


def _texts(value: Any) -> list[Text]:
    """Return the texts of ``inputs``; a string is one text."""
    if isinstance(value, str):
        return [_text(value, "`inputs`")]
    if not isinstance(value, list):
        raise ValueError("must be a string, or a list of strings or of lists of words")
    if not value:
        raise RequestError("`inputs` is empty; send at least one text", "Empty")
    return [_text(one, f"`inputs[{number}]`") for number, one in enumerate(value)]


def _layers(value: Any) -> str | int | list[int] | None:
    if value is None or value in LAYERS or _is_index(value):
        return value  # type: ignore[no-any-return]
    if isinstance(value, list) and value and all(map(_is_index, value)):
        return value
    raise ValueError(f"must be one of {', '.join(LAYERS)}, a layer number or a list of them")


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Inputs = Annotated[list[Text], PlainValidator(_texts)]
Layers = Annotated[Any, PlainValidator(_layers)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TokenizeBody(_Body):
    """Body of /tokenize.

    Attributes:
        inputs: the texts.
        add_special_tokens: accepted as text-embeddings-inference does; biloom has no special tokens.
    """

    inputs: Inputs
    add_special_tokens: bool = False


class EmbedBody(_Body):
    """Body of /embed.

    Attributes:
        inputs: the texts: strings, or lists of words.
        truncate: whether to cut texts that have too many tokens.
        truncation_direction: the side at which a text is cut.
        normalize: whether to scale each vector to length 1.
        layers, pooling: as in `BiLM.embed`; None means the server's default.
        prompt_name, dimensions: not supported; must be null.
    """

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] = "right"
    normalize: bool = True
    layers: Layers = None
    pooling: Pooling | None = None
    prompt_name: None = None
    dimensions: None = None


class EmbedAllBody(_Body):
    """Body of /embed_all.

    Attributes:
        inputs, truncate, truncation_direction, layers, prompt_name: as in `EmbedBody`.
        unit: what has a vector: each "token" or each "word"; None means "token", or the unit of the cache.
        pooling: how the vectors of several tokens become that of a word.
    """

    inputs: Inputs
    truncate: bool | None = None
    truncation_direction: Literal["right", "Right"] = "right"
    unit: Literal["token", "word"] | None = None
    layers: Layers = None
    pooling: Pooling | None = None
    prompt_name: None = None


class OpenAIBody(_Body):
    """Body of /v1/embeddings.

    Attributes:
        input: the texts.
        encoding_format: "float" for numbers, or "base64" for the bytes of little-endian float32.
        layers, pooling: as in `EmbedBody`.
        model, user: ignored, because the server has one model and no users.
        dimensions: not supported; must be null.
    """

    input: Inputs
    encoding_format: Literal["float", "base64"] = "float"
    layers: Layers = None
    pooling: Pooling | None = None
    model: str | None = None
    user: str | None = None
    dimensions: None = None


B = TypeVar("B", bound=_Body)


def parse(kind: type[B], data: bytes) -> B:
    """Return the body of a request.

    Raises:
        RequestError: it is not JSON (400), has wrong fields (422), or has no texts (400).
    """
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            reason = message.removeprefix("Invalid JSON: ")
            raise RequestError(f"the request is not JSON: {reason}", "Validation", 400) from None
        place = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden":
            known = ", ".join(f"`{name}`" for name in kind.model_fields)
            raise RequestError(
                f"`{place}` is not a field of this request; its fields are {known}",
                "Validation",
                422,
            ) from None
        where = f"`{place}`: " if place else "the request: "
        raise RequestError(f"{where}{message}", "Validation", 422) from None
