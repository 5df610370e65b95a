"""The default of `train.recipe` and results of version 0.1, which had no recipe."""

from pipeline.config.recipe import has_default_recipe
from pipeline.config.schema import Config
from pipeline.lifecycle.registry import STAGES
from pipeline.lifecycle.stage import Stage, StageFolder
from pipeline.lifecycle.state import config_of_stage, request_of, state_of
from preprocess.errors import UserError
from preprocess.files import storage


def continued(config: Config) -> Config:
    """Return the config without its default recipe if its run folder was begun without a recipe.

    The defaults of version 0.1 then go on to count.
    """
    if not has_default_recipe(config):
        return config
    plain = config.model_copy(update={"train": config.train.model_copy(update={"recipe": None})})
    return plain if _is_begun(STAGES["train"], plain) else config


def _is_begun(stage: Stage, config: Config) -> bool:
    """Return True if the folder of ``stage`` holds a result or unfinished work of these settings."""
    place = StageFolder(stage.folder(config))
    try:
        if not storage.exists(place.folder):
            return False
        config = config_of_stage(stage, config)
        state = state_of(stage, config, place, request_of(stage, config))
    except (OSError, UserError):  # the stage reports it
        return False
    return bool(state.manifest or state.unfinished) and not state.differing
