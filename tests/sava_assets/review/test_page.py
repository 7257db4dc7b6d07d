"""The page as a file: one script, no network, and data that cannot leave their element."""

import json
import re
from html.parser import HTMLParser

import pyarrow as pa
import pytest

from sava_assets.review.page import CHUNK, page
from tests.pictures import noise, png
from tests.sava_assets.review.shown import shown_table, told

PICTURES = [png(noise(seed=k)) for k in range(3)]
REFERENCES = pa.table({"id": ["r0", "r1"], "label": ["cat", "dog"], "thumbnail": pa.array(PICTURES[:2], pa.binary())})


class Elements(HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag == "script"

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "script"

    def handle_data(self, data):
        if self.inside:
            self.scripts.append((self.tags[-1][1], data))


def elements(shown: pa.Table, content: dict, *, served: bool = False, news: list[str] | None = None) -> Elements:
    return Elements(page(shown, REFERENCES, content, news or [""] * len(shown), served=served).decode())


def policy(found: Elements) -> dict[str, str]:
    (content,) = [a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy"]
    return dict(part.strip().split(" ", 1) for part in content.split(";"))


def test_it_asks_no_network_and_runs_one_script():
    found = elements(shown_table(2, PICTURES), told(2))
    assert not [tag for tag, a in found.tags if {"src", "href", "action", "style"} & a.keys() or tag == "link"]
    assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    assert [a for tag, a in found.tags if tag == "script" and "type" not in a] == [{}]
    asked = policy(found)
    assert asked["default-src"] == asked["connect-src"] == asked["base-uri"] == asked["form-action"] == "'none'"
    assert re.fullmatch("'sha256-[A-Za-z0-9+/=]{44}'", asked["script-src"])
    assert asked["img-src"] == "data:"


def test_served_it_may_ask_its_server_and_nobody_else():
    assert policy(elements(shown_table(1, PICTURES), told(1), served=True))["connect-src"] == "'self'"


HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "]]>\u2028\u2029",
    "\"\\'&lt;<{data}-->",
    "<!--{script}-->",
    "${1}`",
    "\x00\x1b\n",
    "é漢😀",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_data_hold_stays_data(text):
    plain = elements(shown_table(1, PICTURES), told(1))
    content = told(1, classes=["cat", text], shard=text)
    found = elements(shown_table(1, PICTURES, label=text, name=text), content, news=[text])
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    (data,) = [json.loads(body) for a, body in found.scripts if a.get("id") == "data"]
    assert data["classes"] == ["cat", text]
    assert (data["shown"]["id"], data["shown"]["label"]["words"]) == ([f"{text} 0"], [text])
    assert (data["shown"]["news"], data["tables"]["shard"]["lines"][0][0]) == ([text], text)


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1])
def test_every_picture_is_there_once_in_blocks(count):
    import base64

    found = elements(shown_table(count, PICTURES), told(count))
    blocks = {a["id"]: body for a, body in found.scripts if a.get("type") == "text/plain"}
    own = [part for k in range(-(-count // CHUNK)) for part in blocks[f"shown-{k}"].split(",")]
    assert [base64.b64decode(part) for part in own] == [PICTURES[k % 3] for k in range(count)]
    assert len(blocks) == -(-count // CHUNK) + 1


def test_the_same_content_is_the_same_file():
    one, other = (page(shown_table(3, PICTURES), REFERENCES, told(3), [""] * 3, served=False) for _ in range(2))
    assert one == other
