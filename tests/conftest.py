from collections.abc import Iterator

import jaxtyping
import pytest
from hypothesis import settings

settings.register_profile("exact", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("exact")


@pytest.fixture
def untyped() -> Iterator[None]:
    """Without the type checks of the tests, as users run the library: what is refused then, is refused by us."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
