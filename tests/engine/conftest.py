"""What tests of several processes compare with: the run of one."""

import pytest

from affinitynet.pipeline import Run


@pytest.fixture(scope="session")
def whole(finished: Run) -> Run:
    """The run of one process."""
    return finished
