"""Organizations, repositories, tags, permissions, administrators and shares: what the commands change, record and refuse."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

import swrbatch.ledger
from swrbatch import Store
from test_store import ledger_of

# --- migrating -----------------------------------------------------------------------------------------------------------


def old_store(path: Path) -> Path:
    """A store as the version before rights left it: two accounts, three organizations, one account without any."""
    path.mkdir()
    config = Config()
    config.set_main_option("script_location", str(Path(swrbatch.ledger.__file__).parent / "migrations"))
    engine = create_engine(f"sqlite:///{path / 'ledger.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for statement in (
            "INSERT INTO settings VALUES ('account', 'acme'), ('org_quota', '5'), ('region', 'local')",
            "INSERT INTO accounts VALUES (1, 'acme', 1), (2, 'rival', 2), (3, 'idle', 3)",
            "INSERT INTO organizations VALUES (1, 'late', 1, 'bob', 30), (2, 'early', 1, 'ann', 10), (3, 'other', 2, 'eve', 20)",
            "INSERT INTO repositories VALUES (1, 2, 'app', 0, 11)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    return path


def test_an_older_ledger_is_migrated_with_what_it_holds(tmp_path: Path) -> None:
    path = old_store(tmp_path / "store")
    Store(path).close()
    with ledger_of(path) as ledger:
        joined = "organization_grants g JOIN organizations o ON o.id = organization_id"
        grants = f'SELECT o.name, g.account, g."user", g.level FROM {joined}'
        assert sorted(ledger.execute(grants)) == [
            ("early", "acme", "ann", 7),
            ("late", "acme", "bob", 7),
            ("other", "rival", "eve", 7),
        ]
        # Whoever made the account's first organization; nobody where there is none.
        assert sorted(ledger.execute('SELECT account, "user" FROM administrators')) == [("acme", "ann"), ("rival", "eve")]
        assert ledger.execute("SELECT name, is_public, category, description FROM repositories").fetchall() == [
            ("app", 0, "other", "")
        ]
