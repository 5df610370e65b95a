"""Secrets in URLs are refused in a config; others are neither shown nor stored."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.cli import main
from pipeline.config.annotated import annotated_config
from pipeline.config.load import ConfigError, dump_config, load_config
from pipeline.config.secrets import without_hidden_settings

Tiny = Any  # of conftest.py
ADVICE = (
    "holds a user, a password, a token or a signature, which would be copied to the run folder, the "
    "report and wandb; set it in an environment variable, a credentials file or fsspec's own "
    "configuration instead"
)
PORTABLE = "runner={{kind: portable, options: {{{}}}}}"


@pytest.mark.parametrize(
    ("override", "key", "shown"),
    [
        ("prepare.input=https://me:hunter2@host/a.txt", "prepare.input", "https://***@host/a.txt"),
        (
            "prepare.input=[{name: a, path: 'zip://b::https://h/a.zip?sig=hunter2'}]",
            "prepare.input[0].path",
            "zip://b::https://h/a.zip?sig=***",
        ),
        ("run.output=s3://AK:hunter2@bucket/run", "run.output", "s3://***@bucket/run"),
        ("tracking.name=https://hunter2@host", "tracking.name", "https://***@host"),
        (
            PORTABLE.format("job_endpoint: 'me:hunter2@host:80'"),
            "runner.options.job_endpoint",
            "***@host:80",
        ),
        (
            PORTABLE.format("web_page: 'me:hunter2@host:80'"),
            "runner.options.web_page",
            "***@host:80",
        ),
    ],
)
def test_a_url_with_a_secret_is_refused_without_repeating_it(
    override: str, key: str, shown: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load_config(["quickstart"], [override])
    assert f": {key}: {shown} {ADVICE}" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_a_secret_in_a_file_is_refused_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("prepare:\n  input: s3://b/a.txt?X-Amz-Signature=hunter2\n")
    with pytest.raises(ConfigError) as error:
        load_config([str(file)], ["prepare.input=a.txt"])
    assert str(error.value) == (
        f"{file}:2: prepare.input: s3://b/a.txt?X-Amz-Signature=*** {ADVICE}"
    )


@pytest.mark.parametrize(
    "override",
    [
        "runner.options.password=hunter2",
        "runner.storage_options={secret: hunter2, token: hunter2}",
        "prepare.input.api_key='hunter2 and more'",
        "train.steps=https://h/a?token=hunter2",
    ],
)
def test_another_mistake_does_not_repeat_a_secret(
    override: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", override, override]) == 2
    assert "hunter2" not in capsys.readouterr().err


ENVIRONMENT = '{"command": "/opt/boot --api-key hunter2 --port 5", "env": {"HF_TOKEN": "hunter2", "A": ["b"]}}'


def test_secrets_of_workers_are_used_but_neither_shown_nor_stored() -> None:
    options = f"environment_type: PROCESS, environment_config: '{ENVIRONMENT}'"
    config = load_config([], ["prepare.input=a.txt", PORTABLE.format(options)])
    assert getattr(config.runner.options, "environment_config", "") == ENVIRONMENT
    hidden = ENVIRONMENT.replace("hunter2", "***").replace('["b"]', '"***"')
    for text in (dump_config(config), annotated_config(config)):
        assert yaml.safe_load(text)["runner"]["options"]["environment_config"] == hidden
    public = without_hidden_settings(config).model_dump()
    assert public["runner"]["options"]["environment_config"] == hidden


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("EXTERNAL", "localhost:50000"),
        ("DOCKER", "registry.lab:5000/biloom:1.0@sha256:" + 64 * "a"),
        ("DOCKER", "biloom:1.0@sha256:" + 64 * "a"),
        ("PROCESS", '{"command":"/opt/boot@1"}'),
    ],
)
def test_addresses_and_images_are_no_secrets(kind: str, text: str) -> None:
    options = f"environment_type: {kind}, environment_config: '{text}'"
    config = load_config([], ["prepare.input=a.txt", PORTABLE.format(options)])
    assert without_hidden_settings(config) == config


def test_a_url_on_the_command_line_is_read_but_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["inspect", "https://me:hunter2@127.0.0.1:9/a?sig=hunter2"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("biloom: https://***@127.0.0.1:9/a?sig=***: the store reported an error")
    assert "hunter2" not in told
