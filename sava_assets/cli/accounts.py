"""Where every file and row is: used, set aside, quarantined, or passed over; nothing is lost in silence."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from rich.console import Console
from upath import UPath

from sava_assets.formats.contents import PassedOver, contents
from sava_assets.formats.names import counted, shown
from sava_assets.freshness import copies, quality
from sava_assets.freshness.overlap import in_words, without_judges
from sava_assets.freshness.rules import refusal, set_aside
from sava_assets.freshness.sources import landing_of
from sava_assets.freshness.survey import Survey
from sava_assets.home.result import Result
from sava_ops.errors import BadInput

LINES = 10
"""Shown of each list."""
SETS = ("raw_images", "reference_images", "test_images")


@dataclass(frozen=True)
class Accounts:
    """Of all sets of a home."""

    read: list[Result]
    """Of the sets that were read as they lie there now, and whose classes the reference set knows."""
    unread: list[str]
    """The other ones."""
    passed_over: list[PassedOver]
    set_aside: Mapping[str, Mapping[str, str]]
    """Shard → id of each image that is read and not used → the reason."""

    def total(self, number: str) -> int:
        return sum(result.numbers[number] for result in self.read)

    @property
    def line(self) -> str:
        read, aside = self.total("images") - self.promoted, self.total("quarantined")
        passed = len(self.passed_over)
        apart = sum(map(len, self.set_aside.values()))
        by_rule = sum(not each.reason for each in self.passed_over)
        said = f"{read + aside + passed:,} files and rows: {read - apart:,} used"
        said += (f" + {apart:,} set aside" if apart else "") + f" + {aside:,} quarantined + {passed:,} passed over"
        said += f" ({by_rule:,} by rule, being no data by name)" if by_rule else ""
        return said + (f"; not read yet or refused: {', '.join(self.unread)}" if self.unread else "")

    @property
    def promoted(self) -> int:
        """Images of the pool that are in the reference set, too, as people confirmed them."""
        return sum(result.numbers.get("promoted", 0) for result in self.read)

    def quarantine(self) -> list[str]:
        tables = [result.table("quarantine.parquet") for result in self.read if result.numbers["quarantined"]]
        return [f"{row['id']}: {row['reason']}" for row in (pa.concat_tables(tables).to_pylist() if tables else [])]

    def named(self) -> list[str]:
        return [f"{each.name}: {each.reason}" for each in self.passed_over if each.reason]


def accounts(survey: Survey) -> Accounts:
    states = [state for asset in SETS for state in survey.of(asset)]
    taken = [s for s in states if s.status == "fresh" and not refusal(survey.home, s.asset, s.shard)]
    results = {s.title: survey.store.current(s.asset, s.shard) for s in taken}
    read = [result for result in results.values() if result]
    unread = [s.title for s in states if not results.get(s.title)]
    shards = [s.shard for s in states if s.shard is not None and results.get(s.title)]
    aside = {shard: found for shard in shards if (found := without_judges(set_aside(survey, shard)))}
    return Accounts(read, unread, list(_passed_over(survey)), aside)


def say_accounts(survey: Survey, console: Console, *, quarantine: bool) -> None:
    """The sum, how many are set aside of which shard, and the names of what was passed over; with `quarantine` also of
    what was quarantined and set aside. One line each, whole, as it is."""
    found = accounts(survey)
    _say(console, found.line)
    if quarantine and (aside := found.quarantine()):
        _say(console, f"{counted(len(aside), 'image')} quarantined:")
        _say_some(console, aside, "in quarantine.parquet of each set's result")
    if words := in_words(found.set_aside):
        _say(console, words)
        lines = [f"{name}: {reason}" for own in found.set_aside.values() for name, reason in own.items()]
        if quarantine:
            _say_some(console, lines, "in the table of decisions")
    if found.promoted:
        _say(console, f"promoted: {counted(found.promoted, 'image')} of the pool among the judges, as people confirmed")
    pruned, near = (survey.store.current(name) for name in ("pruned_dataset", "near_copies"))
    if pruned and near:
        for words in copies.in_words(pruned.numbers, near.numbers):
            _say(console, words)
    if pruned and (words := quality.in_words(pruned.numbers)):
        _say(console, words)
    if passed := found.named():
        _say(console, "passed over:")
        _say_some(console, passed, "in the logs of the sets")


def _passed_over(survey: Survey) -> Iterator[PassedOver]:
    """In the landing folder, its shards and the other sets; a set that cannot be looked through says so itself."""
    knobs, landed = survey.knobs, landing_of(survey.home)
    yield from landed.passed_over
    sets: dict[str, UPath] = {**landed.shards}
    sets |= {
        name: survey.home.folder(path) for name in ("reference", "clean_train", "test") if (path := knobs.value(name))
    }
    for name, path in sets.items():
        try:
            inside = contents(path, follow_links=knobs.follow_links).passed_over
        except (BadInput, OSError):  # its state is "failed", for this reason
            continue
        yield from (PassedOver(f"{shown(name)}/{each.name}", each.reason) for each in inside)


def _say_some(console: Console, lines: list[str], where: str) -> None:
    for line in lines[:LINES]:
        _say(console, f"  {line}")
    if len(lines) > LINES:
        _say(console, f"  … and {len(lines) - LINES:,} more, {where}")


def _say(console: Console, line: str) -> None:
    console.print(shown(line), soft_wrap=True, markup=False, highlight=False)
