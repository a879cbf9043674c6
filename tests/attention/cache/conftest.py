"""What the tests of the cache share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module")
def no_grad() -> Iterator[None]:
    """No pass of the module keeps what a gradient would need."""
    with torch.no_grad():
        yield
