"""Settings as people write them (`sava.yaml`): read as YAML, checked, and what is wrong said in a sentence."""

import reprlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from upath import UPath

from sava_assets.home.places import content, shortened
from sava_ops.errors import BadInput

Settings = TypeVar("Settings", bound=BaseModel)
_SHORT = reprlib.Repr()
"""Of a value in a sentence: a few lines of YAML that refer to each other can stand for a billion."""
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 2, 4, 4, 100, 100


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a key that is there twice: YAML would let the last one count."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict:
    seen: set[Any] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` is there twice", key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_settings(path: UPath, kind: type[Settings]) -> Settings:
    """The settings of a file; defaults where it is silent. Raises BadInput naming key and allowed range."""
    try:
        written = content(path)
    except (FileNotFoundError, NotADirectoryError):
        return kind()
    except IsADirectoryError:
        raise BadInput(f"{path} is a folder: write the settings into a file of that name") from None
    return _checked(path, written, kind)


@lru_cache(maxsize=16)
def _checked(path: UPath, written: bytes, kind: type[Settings]) -> Settings:
    """Of settings that are read again and again, and change rarely."""
    try:
        settings = yaml.load(written.decode("utf-8-sig"), _UniqueKeys) or {}
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    except RecursionError as error:
        raise BadInput(f"{path} is nested too deeply: write `key: value` lines") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {_yaml_fault(error)}") from error
    except Exception as error:
        # A date or number that there is not, a tag on the wrong value: PyYAML raises what it hits.
        raise BadInput(
            f"{path} holds a value that YAML cannot read ({shortened(str(error))}): put it in quotes"
        ) from error
    if not isinstance(settings, dict):
        raise BadInput(f"{path} holds a {type(settings).__name__}: write `key: value` lines")
    try:
        read = kind.model_validate(settings)
    except ValidationError as error:
        raise BadInput(f"{path}: {knob_problems(error)}") from error
    if truths := list(_truths(settings, read)):
        raise BadInput(
            f"{path}: " + "; ".join(f"`{shortened(key)}` is {value}: write a number" for key, value in truths)
        )
    return read


def _truths(settings: dict, read: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Key and value of each truth value that was taken for a number: YAML reads yes, no, on and off as such."""
    for name, written in settings.items():
        taken = read.get(str(name)) if isinstance(read, dict) else getattr(read, str(name), None)
        if isinstance(written, dict):
            yield from _truths(written, taken, f"{prefix}{name}.")
        elif isinstance(written, bool) and isinstance(taken, int | float) and not isinstance(taken, bool):
            yield prefix + name, written


def _yaml_fault(error: yaml.YAMLError) -> str:
    """What and where, without the line itself: it may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return shortened(" ".join(str(error).split()))
    mark = error.problem_mark
    said = ", ".join(part for part in (error.context, error.problem) if part)
    return f"{shortened(said)} (line {mark.line + 1}, column {mark.column + 1})"


def knob_problems(error: ValidationError) -> str:
    """Key and allowed range of each knob that is not as it must be."""
    return "; ".join(_problem(problem) for problem in error.errors())


def _problem(error: Any) -> str:
    key = shortened(".".join(str(part) for part in error["loc"]))
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"`{key}` is not a knob: remove it or correct its name"
    if error["type"] in ("model_type", "dataclass_type"):
        return f"`{key}` is {_SHORT.repr(error['input'])}: write its settings below it, as `name: value` lines"
    if error["type"] == "value_error":
        return f"`{key}`: {error['ctx']['error']}"
    return f"`{key}` is {_SHORT.repr(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"
