"""Settings of what leaves a home: limits beyond which nothing is published, and who is told of a curation."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_SPACE = re.compile(r"[\s\x00-\x1f\x7f]")
STRICT = ConfigDict(extra="forbid")
WEBHOOK_WANTED = (
    "it must be an http:// or https:// address, or `{env: NAME}` for the environment variable that holds one"
)


def _floor(given: Any) -> int | dict[str, int] | None:
    floors = given if isinstance(given, Mapping) else {"": given}
    whole = [type(floor) is int and floor >= 1 for floor in floors.values()]
    if given is not None and not (whole and all(whole)):
        raise ValueError("it must be a number of images from 1, or one for each class, as `{cat: 50, dog: 20}`")
    return {str(name): floor for name, floor in given.items()} if isinstance(given, Mapping) else given


class GateKnobs(BaseModel):
    """Limits beyond which a curation is decided and shown, and not published: what was published before stays."""

    model_config = STRICT
    shard_bad_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Largest estimated share of bad points in a shard."""
    reference_trusted: bool = False
    """The check `reference_trusted` must hold: few reference images look as if they should not judge."""
    class_images: Annotated[int | dict[str, int] | None, BeforeValidator(_floor)] = None
    """Fewest images of each class of the reference set in what is published, or of each class that is named."""
    accuracy_drop: Annotated[float, Field(ge=0, le=1)] | None = None
    """How far the test accuracy on what is kept may fall below that of the last published curation; publication then
    waits for the accuracy."""
    confirm: str | None = None
    """Of the one curation that is published whatever the limits say: the name that it was held back with."""


def is_web_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        return known and not _SPACE.search(text)
    except ValueError:  # a port that is no number, a bracket that is not closed
        return False


def _webhook(given: Any) -> Any:
    """Nothing is said of the value: who knows it, can write to the channel."""
    named = isinstance(given, Mapping) and list(given) == ["env"] and isinstance(given["env"], str)
    known = named and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", given["env"])
    if given is not None and not known and not (isinstance(given, str) and is_web_address(given)):
        raise ValueError(WEBHOOK_WANTED)
    return given


def _command(given: Any) -> Any:
    words = isinstance(given, list) and all(isinstance(word, str) and "\0" not in word for word in given)
    if given is not None and not (words and given and given[0]):
        raise ValueError('it must be a list of a program and its arguments, as `["mail", "-s", "SAVA", "me"]`')
    return given


class NotifyKnobs(BaseModel):
    """Who gets five lines when a curation ends."""

    model_config = STRICT
    webhook: Annotated[str | dict[str, str] | None, BeforeValidator(_webhook), Field(repr=False)] = None
    """Address to which they are posted; `{env: NAME}` where it is a secret, as Slack's are."""
    format: Literal["json", "slack"] = "json"
    """Of what is posted: an object with `text` and the facts, or Slack's."""
    command: Annotated[list[str] | None, BeforeValidator(_command)] = None
    """Program and arguments, run without a shell; it reads the lines from its standard input."""

    @property
    def wanted(self) -> bool:
        return self.webhook is not None or self.command is not None
