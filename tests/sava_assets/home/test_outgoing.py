"""Settings of limits and notices: each wrong one is one sentence, and none repeats the address of a webhook."""

import pytest
from upath import UPath

from sava_assets.home.outgoing import WEBHOOK_WANTED, is_web_address
from sava_assets.home.resources import Knobs, read_knobs
from sava_ops import BadInput

SECRET = "T0K3N"
FLOOR = "it must be a number of images from 1, or one for each class, as `{cat: 50, dog: 20}`"
COMMAND = "it must be a list of a program and its arguments, as "


def knobs_of(text: str, folder) -> Knobs:
    (folder / "sava.yaml").write_text(text)
    return read_knobs(UPath(folder / "sava.yaml"))


def test_what_is_set_is_read(tmp_path):
    knobs = knobs_of(
        "gates: {shard_bad_share: 0.5, reference_trusted: true, class_images: {cat: 5, 7: 2}, accuracy_drop: 0.02, "
        'confirm: "12e4"}\n'
        f"notify: {{webhook: 'https://x.example/{SECRET}', format: slack, command: [mail, me]}}",
        tmp_path,
    )
    assert knobs.gates.class_images == {"cat": 5, "7": 2}
    assert knobs.gates.confirm == "12e4"
    assert knobs.notify.command == ["mail", "me"]
    assert SECRET not in repr(knobs)
    assert knobs_of("notify: {webhook: {env: SAVA_WEBHOOK}}", tmp_path).notify.webhook == {"env": "SAVA_WEBHOOK"}
    assert knobs_of("gates: {class_images: 3}", tmp_path).gates.class_images == 3
    assert not Knobs().notify.wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gates: {shard_bad_share: 2}", "`gates.shard_bad_share` is 2: input should be less than or equal to 1"),
        ("gates: {accuracy_drop: -1}", "`gates.accuracy_drop` is -1: input should be greater than or equal to 0"),
        ("gates: {reference_trusted: perhaps}", "`gates.reference_trusted` is 'perhaps': input should be a valid bool"),
        ("gates: {shard: 1}", "`gates.shard` is not a knob: remove it or correct its name"),
        ("gates: {confirm: 12}", "`gates.confirm` is 12: input should be a valid string"),
        ("gates: {class_images: 0}", f"`gates.class_images`: {FLOOR}"),
        ("gates: {class_images: true}", f"`gates.class_images`: {FLOOR}"),
        ("gates: {class_images: {cat: many}}", f"`gates.class_images`: {FLOOR}"),
        ("gates: {class_images: {}}", f"`gates.class_images`: {FLOOR}"),
        ("notify: {format: teams}", "`notify.format` is 'teams': input should be 'json' or 'slack'"),
        ("notify: {command: mail me}", f"`notify.command`: {COMMAND}"),
        ("notify: {command: []}", f"`notify.command`: {COMMAND}"),
        ('notify: {command: ["", x]}', f"`notify.command`: {COMMAND}"),
        ("notify: {command: [mail, 3]}", f"`notify.command`: {COMMAND}"),
        (f"notify: {{webhook: ftp://x/{SECRET}}}", f"`notify.webhook`: {WEBHOOK_WANTED}"),
        (f"notify: {{webhook: [https://x/{SECRET}]}}", f"`notify.webhook`: {WEBHOOK_WANTED}"),
        (f"notify: {{webhook: {{env: https://x/{SECRET}}}}}", f"`notify.webhook`: {WEBHOOK_WANTED}"),
        (f"notify: {{webhook: {{url: https://x/{SECRET}}}}}", f"`notify.webhook`: {WEBHOOK_WANTED}"),
        (f"notify:\n  webhook: 'https://x/{SECRET}\n", "sava.yaml is not valid YAML: while scanning a quoted scalar"),
        (f"notify: {{webhook: https://x/{SECRET}: a: b}}", "sava.yaml is not valid YAML: "),
    ],
)
def test_a_wrong_setting_is_one_sentence_without_the_secret(text, message, tmp_path):
    with pytest.raises(BadInput) as told:
        knobs_of(text, tmp_path)
    assert message in str(told.value)
    assert SECRET not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_fault_of_the_yaml_is_placed_by_line_and_column(tmp_path):
    with pytest.raises(BadInput, match=r"`cap` is there twice \(line 2, column 12\)$"):
        knobs_of("prune:\n  {cap: 0, cap: 1}\n", tmp_path)


@pytest.mark.parametrize("address", ["http://h", "https://h:8443/a?b=c", "http://[::1]:9/x", "https://münchen.de/"])
def test_addresses_of_the_web(address):
    assert is_web_address(address)


@pytest.mark.parametrize(
    "address", ["", "h", "//h", "http://", "http://h:x", "http://[::1", "http://h\n", "http://h x"]
)
def test_what_is_no_address_of_the_web(address):
    assert not is_web_address(address)
