"""What comes back: what people said in another tool, as decisions of the home."""

import json
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sava_assets.formats.decision_files import PersonDecision, decision_of, decisions_json, read_decisions
from sava_assets.formats.names import counted
from sava_assets.home.resources import Workspace
from sava_assets.home.store import put_file
from sava_ops.errors import BadInput

DECIDED = ("decision", "decision_label", "decided_by", "decided_at", "decision_note")
"""What an image that goes out carries of the decision on it."""


@dataclass(frozen=True)
class Incoming:
    """What a file of another tool says."""

    decisions: list[PersonDecision] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    """What held no decision, in words → how often."""


def carried(decided: PersonDecision | None) -> dict[str, str | None]:
    """The fields `DECIDED` of an image that goes out."""
    if decided is None:
        return dict.fromkeys(DECIDED)
    said = (decided.decision, decided.label, decided.who, decided.when.isoformat(), decided.note or None)
    return dict(zip(DECIDED, said, strict=True))


def answered(image: Mapping[str, Any], said: Mapping[str, Any], place: str) -> PersonDecision:
    """The decision that was `said` on an image; who says what was decided when it went out repeats that decision.

    Raises BadInput that begins with the `place`.
    """
    pixel_hash = image.get("pixel_hash")
    if pixel_hash is None:
        raise BadInput(f"{place}: there is no `pixel_hash`: import what was exported from a home")
    made = decision_of({"pixel_hash": pixel_hash, **said}, place)
    if not image.get("decision"):
        return made
    before = dict(zip(("decision", "label", "who", "when", "note"), (image.get(name) for name in DECIDED), strict=True))
    stood = decision_of({"pixel_hash": pixel_hash, **before}, place)
    return stood if stood.outcome == made.outcome else made


def take_in(workspace: Workspace, tool: str, found: Incoming, *, who: str, when: datetime) -> list[str]:
    """Write what is new into the home's decisions; returns what is to be said. Raises BadInput if nothing was decided.

    Who changed a decision in a table and left its author and time gets others: `who` and `when`.
    """
    unsaid = [f"{count:,} {what}" for what, count in found.passed_over.items()]
    if not found.decisions:
        raise BadInput(f"nothing is decided there ({', '.join(unsaid) or 'it is empty'}): decide on some images first")
    folder = workspace.folder(workspace.knobs.decisions)
    known = {_at(each): each.outcome for each in read_decisions(folder)}
    new = []
    for each in found.decisions:
        if known.get(_at(each), each.outcome) != each.outcome:
            each = replace(each, who=who, when=when)
        if known.get(_at(each)) != each.outcome:
            new.append(each)
            known[_at(each)] = each.outcome
    told = [f"passed over: {', '.join(unsaid)}"] if unsaid else []
    if there := len(found.decisions) - len(new):
        told.append(f"already in {folder.name}/: {counted(there, 'decision')}")
    if not new:
        return told
    target = folder / f"{tool}-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(4)}.json"
    put_file(target, decisions_json(new))
    return [*told, f"{counted(len(new), 'decision')} in {folder.name}/{target.name}; `sava curate` applies them"]


def read_json(path: Path) -> Any:
    """Raises BadInput for what is no file of JSON."""
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is not valid JSON ({error}): export it again") from error


def _at(decision: PersonDecision) -> tuple[str, str, datetime]:
    return decision.pixel_hash, decision.who, decision.when
