"""The page served to a browser of this machine, so that saving writes into the home.

Whoever wants to write must know the address, which holds a secret, and must be that page: a foreign site that the same
browser has open neither knows the secret nor can it send this host and origin (CSRF, DNS rebinding).
"""

import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from upath import UPath

from sava_assets.formats.decision_files import decisions_json, parsed
from sava_assets.formats.names import counted
from sava_assets.home.store import put_file
from sava_ops.errors import BadInput

HOST = "127.0.0.1"
MOST_BYTES = 64 * 2**20
"""Of what is saved at once: a hundred thousand decisions."""
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def save_decisions(folder: UPath, body: bytes) -> str:
    """Write decisions, after they were read as whoever reads them later will; says where. Raises BadInput."""
    made = parsed("what was sent.json", body)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    target = folder / f"review-{stamp}-{secrets.token_hex(4)}.json"
    put_file(target, decisions_json(made))
    return f"{counted(len(made), 'decision')} in {folder.name}/{target.name}; `sava curate` applies them"


class ReviewServer(ThreadingHTTPServer):
    """Serves one page on 127.0.0.1 and saves what is decided on it."""

    daemon_threads = True

    def __init__(self, port: int, page: Callable[[], bytes], save: Callable[[bytes], str]) -> None:
        super().__init__((HOST, port), _Handler)
        self.page, self.save = page, save
        self.secret = secrets.token_urlsafe(24)

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.server_port}"

    @property
    def address(self) -> str:
        return f"{self.origin}/{self.secret}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version, sys_version = "sava", ""
    timeout = 60

    def do_GET(self) -> None:
        if not self._allowed(""):
            return
        try:
            self._answer(HTTPStatus.OK, self.server.page(), "text/html; charset=utf-8")
        except BadInput as fault:  # a curation goes on meanwhile
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, str(fault))

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not self._allowed("decisions"):
            pass
        elif self.headers.get("Origin") != self.server.origin:
            self._refuse(HTTPStatus.FORBIDDEN, "this page is not the one that was served: open it again")
        elif self.headers.get("Content-Type") != "application/json":
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send JSON")
        elif not length.isdecimal() or not 0 < int(length) <= MOST_BYTES:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"send 1 to {MOST_BYTES:,} bytes")
        else:
            self._save(self.rfile.read(int(length)))

    def _save(self, body: bytes) -> None:
        try:
            self._answer(HTTPStatus.OK, self.server.save(body).encode())
        except BadInput as fault:
            self._refuse(HTTPStatus.BAD_REQUEST, str(fault))
        except OSError as fault:
            words = f"it cannot be written ({fault.strerror}): make room, or allow it"
            self._refuse(HTTPStatus.INSUFFICIENT_STORAGE, words)

    def _allowed(self, what: str) -> bool:
        """Whether a request names this server and its secret; else it is refused."""
        if self.headers.get("Host") != self.server.origin.removeprefix("http://"):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "this is another host: open the address that was printed")
            return False
        if not secrets.compare_digest(self.path.encode(), f"/{self.server.secret}/{what}".encode()):
            self._refuse(HTTPStatus.NOT_FOUND, "nothing is here: open the whole address that was printed")
            return False
        return True

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        # What was not read of the body would be taken for the next request.
        self.close_connection = True
        self._answer(status, words.encode())

    def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in (HEADERS | {"Content-Type": kind, "Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the address holds the secret."""
