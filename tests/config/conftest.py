"""Recipes written by tests, and what their mistakes are told."""

import pytest

from mask2former.config import load_cfg
from mask2former.utils.errors import UserError


@pytest.fixture
def write(tmp_path):
    """Makes a recipe of a text."""

    def write(text: str, name: str = "recipe.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return write


@pytest.fixture
def error_of():
    """The message with which a recipe is refused."""

    def error_of(path, opts=()) -> str:
        with pytest.raises(UserError) as caught:
            load_cfg(path, opts)
        return str(caught.value)

    return error_of
