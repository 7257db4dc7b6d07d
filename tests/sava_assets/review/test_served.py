"""Who may save: the page that was served, to the host that serves it, with the secret of its address."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from sava_assets.formats.decision_files import read_decisions
from sava_assets.review.served import MOST_BYTES, ReviewServer, save_decisions
from sava_ops import BadInput

pytestmark = pytest.mark.long
ROW = {"pixel_hash": "a" * 64, "decision": "relabel", "label": "<script>", "when": "2026-01-31T18:05:00Z"}
BODY = json.dumps({"curation": "x", "decisions": [ROW]}).encode()


@pytest.fixture
def server(tmp_path) -> Iterator[ReviewServer]:
    folder = UPath(tmp_path / "decisions")
    with ReviewServer(0, lambda: b"the page", lambda body: save_decisions(folder, body)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: ReviewServer, method: str, path: str, body: bytes = b"", **headers: str | None) -> tuple[int, str]:
    """Status and words. Headers as the served page sends them, but for those given; None leaves one out."""
    own = {"Host": f"127.0.0.1:{server.server_port}"}
    if method == "POST":
        own |= {"Origin": server.origin, "Content-Type": "application/json"}
        own |= {"Content-Length": str(len(body))}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    for name, value in own.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body or None)
    answer = connection.getresponse()
    words = answer.read().decode()
    for name in ("Access-Control-Allow-Origin", "Access-Control-Allow-Headers"):
        assert answer.getheader(name) is None
    assert (answer.getheader("X-Content-Type-Options"), answer.getheader("X-Frame-Options")) == ("nosniff", "DENY")
    assert answer.getheader("Cache-Control") == "no-store"
    connection.close()
    return answer.status, words


def saved(tmp_path: Path) -> list[str]:
    folder = tmp_path / "decisions"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_page_is_served_and_what_it_saves_is_read_back(server, tmp_path):
    path = f"/{server.secret}/"
    assert ask(server, "GET", path) == (200, "the page")
    status, words = ask(server, "POST", f"{path}decisions", BODY)
    (file,) = saved(tmp_path)
    assert (status, words) == (200, f"1 decision in decisions/{file}; `sava curate` applies them")
    (made,) = read_decisions(UPath(tmp_path / "decisions"))
    assert (made.pixel_hash, made.decision, made.label) == (ROW["pixel_hash"], "relabel", "<script>")
    ask(server, "POST", f"{path}decisions", BODY)
    assert len(saved(tmp_path)) == 2  # nothing that was saved is overwritten


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Host": "evil.example"}, 421, "this is another host: open the address that was printed"),
        ({"Host": "evil.example:80"}, 421, "another host"),
        ({"Host": "localhost:1"}, 421, "another host"),
        ({"Host": None}, 421, "another host"),
        ({"Origin": "http://evil.example"}, 403, "this page is not the one that was served: open it again"),
        ({"Origin": "null"}, 403, "not the one"),
        ({"Origin": None}, 403, "not the one"),
        ({"Content_Type": "text/plain"}, 415, "send JSON"),
        ({"Content_Type": "application/x-www-form-urlencoded"}, 415, "send JSON"),
        ({"Content_Type": None}, 415, "send JSON"),
        ({"Content_Length": str(MOST_BYTES + 1)}, 413, "send 1 to 67,108,864 bytes"),
        ({"Content_Length": "0"}, 413, "send 1 to"),
        ({"Content_Length": "-1"}, 413, "send 1 to"),
        ({"Content_Length": None}, 413, "send 1 to"),
    ],
)
def test_nobody_else_saves(server, tmp_path, headers, status, words):
    found = ask(server, "POST", f"/{server.secret}/decisions", BODY, **headers)
    assert found[0] == status
    assert words in found[1]
    assert saved(tmp_path) == []


@pytest.mark.parametrize("path", ["/", "/decisions", "/wrong/", "/{}", "/{}/other", "/{}/../{}/", "/{}/?x", "/%C3%A9/"])
def test_nothing_is_served_without_the_secret(server, tmp_path, path):
    path = path.format(server.secret, server.secret)
    assert ask(server, "GET", path)[0] == 404
    assert ask(server, "POST", path, BODY)[0] == 404
    assert saved(tmp_path) == []


def test_a_foreign_host_does_not_see_the_page(server):
    assert ask(server, "GET", f"/{server.secret}/", Host="evil.example")[0] == 421


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_not_there(server, method):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, f"/{server.secret}/decisions")
    assert connection.getresponse().status == 501
    connection.close()


def test_what_no_reader_could_read_is_not_saved(server, tmp_path):
    bad = json.dumps([ROW | {"pixel_hash": "x"}]).encode()
    status, words = ask(server, "POST", f"/{server.secret}/decisions", bad)
    assert status == 400
    assert words.startswith("what was sent.json, row 1: `pixel_hash` is 'x': copy the 64 hexadecimal digits")
    assert saved(tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing_half_written(server, tmp_path):
    (tmp_path / "decisions").write_text("in the way")
    status, words = ask(server, "POST", f"/{server.secret}/decisions", BODY)
    assert status == 507
    assert words.startswith("it cannot be written (")
    assert (tmp_path / "decisions").read_text() == "in the way"


def test_it_listens_on_loopback_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for address in others:
        with pytest.raises(OSError, match=r"refused|unreachable|timed out"):
            socket.create_connection((address, server.server_port), timeout=2)


def test_every_server_has_a_secret_of_its_own():
    with ReviewServer(0, bytes, lambda _: "") as one, ReviewServer(0, bytes, lambda _: "") as other:
        assert one.secret != other.secret
        assert len(one.secret) >= 32
        assert one.address == f"http://127.0.0.1:{one.server_port}/{one.secret}/"


def test_a_refused_save_raises_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="holds no list of decisions"):
        save_decisions(UPath(tmp_path / "decisions"), b"{}")
    assert not (tmp_path / "decisions").exists()


def test_a_page_that_is_due_is_said_to_be(server):
    def due() -> bytes:
        raise BadInput("the page is due: run `sava curate` first")

    server.page = due
    assert ask(server, "GET", f"/{server.secret}/") == (503, "the page is due: run `sava curate` first")
