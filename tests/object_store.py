"""An object store: a server that speaks S3, on a free port of this machine. It counts what it is asked."""

import itertools
import os
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from s3fs import S3FileSystem
from upath import UPath

from sava_assets.home.places import opened

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": "tests",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
"""Nothing of the user's own."""


@dataclass
class ObjectStore:
    """What is asked of it, one line a request."""

    address: str
    requests: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def bucket(self) -> UPath:
        """A new one, empty."""
        bucket = opened(f"s3://bucket-{next(self._numbers)}")
        bucket.fs.mkdir(bucket.path.strip("/"))
        return bucket

    @contextmanager
    def refusing_everyone(self) -> Iterator[None]:
        """No key is known any more."""
        self._authorised_after("0")
        try:
            yield
        finally:
            self._authorised_after("inf")

    def _authorised_after(self, count: str) -> None:
        asked = urllib.request.Request(
            f"{self.address}/moto-api/reset-auth", count.encode(), {"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(asked).close()


@contextmanager
def running() -> Iterator[ObjectStore]:
    """Until the end; the environment leads there, and nowhere else."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log_request(self, *_: object) -> None:
            """Nothing."""

    asked, backend = [], DomainDispatcherApplication(create_backend_app)

    def counted(environ: dict, start: Callable) -> object:
        asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}")
        return backend(environ, start)

    server = make_server("127.0.0.1", 0, counted, threaded=True, request_handler=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patched.delenv(name)
        store = ObjectStore(f"http://127.0.0.1:{server.server_port}", asked)
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": store.address}.items():
            patched.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        yield store
    S3FileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


@contextmanager
def as_others(**environment: str | None) -> Iterator[None]:
    """With these variables of the environment (None: without), which drivers read when they are first used."""
    with pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.delenv(name) if value is None else patched.setenv(name, value)
        S3FileSystem.clear_instance_cache()
        yield
    S3FileSystem.clear_instance_cache()
