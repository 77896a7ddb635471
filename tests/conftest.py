"""What tests are given: a database of their own, and the log in it."""

from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from app.audit.log import Log
from tests.database import SEALER, Databases, server

# How long an example takes says something of the machine, which others use too, and nothing of what is asserted.
settings.register_profile("sophon", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sophon")


@pytest.fixture(scope="session")
async def databases() -> AsyncIterator[Databases]:
    """Fresh databases, for tests that need more than one."""
    with server() as dsn:
        databases = Databases(dsn)
        await databases.prepare()
        yield databases
        databases.discard()


@pytest.fixture
def dsn(databases: Databases) -> Iterator[str]:
    """A fresh database with the log's tables."""
    with databases.fresh() as dsn:
        yield dsn


@pytest.fixture
async def log(dsn: str) -> AsyncIterator[Log]:
    """An open, empty log."""
    async with Log.open(dsn, SEALER) as log:
        yield log
