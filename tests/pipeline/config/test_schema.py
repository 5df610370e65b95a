"""Rules that span several settings of the config."""

import pytest
from pydantic.fields import FieldInfo

from pipeline.config.load import ConfigError, load_config
from pipeline.config.schema import Config
from preprocess.section import Section


def test_every_key_has_a_one_line_description() -> None:
    def described(section: type[Section], prefix: str) -> list[str]:
        missing = []
        for name, field in section.model_fields.items():
            if name != "kind" and (not field.description or "\n" in field.description):
                missing.append(prefix + name)
            missing += below(field, f"{prefix}{name}.")
        return missing

    def below(field: FieldInfo, prefix: str) -> list[str]:
        from pipeline.config.diagnostics import sections

        return [key for section in sections(field) for key in described(section, prefix)]

    assert described(Config, "") == []


@pytest.mark.parametrize("url", ["zip://x::/tmp/a.zip", "simplecache::s3://bucket/x"])
def test_a_chained_output_is_refused(url: str) -> None:
    with pytest.raises(
        ConfigError, match=r"run\.output: a chained URL cannot be written to; use a"
    ):
        load_config([], ["prepare.input=a.txt", f"run.output={url}"])


@pytest.mark.parametrize("url", ["https://example.org/x", "http://example.org/x"])
def test_a_web_address_is_refused_as_output(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config([], ["prepare.input=https://example.org/a.txt", f"run.output={url}"])
    assert str(caught.value) == (
        f"override 'run.output={url}': run.output: a web address cannot be "
        "written to; use a folder or the URL of a store"
    )


@pytest.mark.parametrize("mode", ["auto", "multi_processing"])
def test_memory_is_refused_as_output_if_there_may_be_other_processes(mode: str) -> None:
    output = "run.output=memory://x"
    with pytest.raises(ConfigError, match="memory:// is private to one process"):
        load_config([], ["prepare.input=x", output, f"runner.options.mode={mode}"])
    assert load_config([], ["prepare.input=x", output, "runner.options.mode=in_memory"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("cleaning: {}", "cleaning, but texts are cleaned as the model's training text was"),
        ("filters: {min_characters: 3}", "filters, but every text is embedded"),
        ("split: valid", "split, but all texts are embedded alike"),
        ("weight: 2", "weight, but all texts are embedded alike"),
    ],
)
def test_settings_of_a_source_that_embedding_cannot_use_are_refused(
    setting: str, message: str
) -> None:
    source = f"embed.input=[{{name: web, path: x, {setting}}}]"
    with pytest.raises(ConfigError) as caught:
        load_config([], ["prepare.input=x", source])
    told = f"embed: input: the source 'web' has its own {message}"
    assert str(caught.value).startswith(f"override '{source}': {told}")
    assert str(caught.value).endswith("; remove it")


def test_settings_of_a_source_that_embedding_uses_are_accepted() -> None:
    source = "{name: web, path: x, format: jsonl, text_field: t, encoding: cp1252, license: CC0}"
    config = load_config([], ["prepare.input=x", f"embed.input=[a, {source}]"])
    assert [s.name for s in config.embed.sources or ()] == ["corpus", "web"]
    assert load_config([], ["prepare.input=x"]).embed.sources is None


@pytest.mark.parametrize("given", ["[{path: a}, {path: b}]", "[a, {path: b}]"])
def test_two_sources_to_embed_need_names(given: str) -> None:
    with pytest.raises(ConfigError, match=r"embed: two sources are named 'corpus' .*give each"):
        load_config([], ["prepare.input=x", f"embed.input={given}"])


def test_a_config_cannot_be_written_to() -> None:
    config = load_config([], ["prepare.input=x"])
    with pytest.raises(ValueError, match="frozen"):
        config.run.output = "elsewhere"  # type: ignore[misc]


@pytest.mark.parametrize(
    "override",
    [
        *("train.rows", "train.unroll", "train.accumulate_steps", "train.devices"),
        *("train.num_nodes", "train.data_workers", "model.recurrent.layers"),
        *("model.recurrent.hidden", "model.recurrent.projection", "model.input.dim"),
        *("evaluate.rows", "runner.options.workers"),
    ],
)
def test_a_size_that_no_machine_has_is_refused(override: str) -> None:
    for number in (1_000_000_000, (1 << 63) - 1):
        with pytest.raises(ConfigError, match=f"{override}: must be a whole .* and at most "):
            load_config([], ["prepare.input=a", f"{override}={number}"])
