"""The ledger: who, what and when, in one SQL database (SQLite by default), changed by one transaction at a time.

What this package guarantees: a write transaction is serialised from its start (`BEGIN IMMEDIATE`), durable when it returns
(`synchronous=FULL`), and its events have the numbers that follow the newest committed one. Errors of the database reach
callers as `StoreError`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from .. import faults
from ..digest import Cancel
from ..errors import StoreError
from .schema import HEAD, metadata

_BUSY_SECONDS = 120
_ATTEMPT_SECONDS = 0.2


class Ledger:
    """An open ledger. `read()` and `write()` give a connection inside a transaction."""

    def __init__(self, path: str) -> None:
        """Open `path`, made and migrated at need; StoreError when it is damaged, newer than this program, or unwritable."""
        self.path = path
        self._engine = _engine(path)
        try:
            faults.point("ledger:open:before")
            with self._translated(), self._engine.connect() as connection:
                current = _revision(connection)
            faults.point("ledger:open:after")
            if current is None:
                self._create()
            elif current != HEAD:
                self._migrate(current)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._engine.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent snapshot."""
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    def damage(self) -> list[str]:
        """What SQLite finds wrong with its file, page by page and index by index; nothing when it is whole."""
        with self.read() as connection:
            found = [str(line) for line in connection.execute(text("PRAGMA integrity_check(20)")).scalars()]
        return [line for line in found if line != "ok"]

    @contextlib.contextmanager
    def write(self, cancel: Cancel | None = None) -> Iterator[Connection]:
        """A transaction that excludes other writers; committed durably at the end, rolled back on any exception.

        `cancel` ends waiting for another writer (`Cancelled`).
        """
        options = {"swrbatch_write": True, "swrbatch_cancel": cancel}
        with self._translated(), self._engine.connect().execution_options(**options) as connection:
            with connection.begin():
                yield connection
                faults.point("ledger:commit:before")
            faults.point("ledger:commit:after")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as e:
            reason = str(getattr(e, "orig", None) or e).splitlines()[0]
            hint = {
                "database is locked": "; another process holds it for long: try again",
                "database or disk is full": "; free some space and run again: what was loaded stays",
                "disk I/O error": "; look at the disk (full, or failing) and run again: what was loaded stays",
                "file is not a database": "; it is no SQLite file: restore it from a backup",
                "database disk image is malformed": "; it is damaged: restore it from a backup",
                "unable to open database file": "; check the permissions of the store's folder, and that its disk is not full",
                "attempt to write a readonly database": "; check the permissions of the store's folder",
            }.get(reason, "")
            raise StoreError(f"the ledger {self.path} failed: {reason}{hint}") from e

    def _create(self) -> None:
        """The newest tables in one step, as the migrations make them (a test holds the two together): Alembic is slow to load."""
        with self.write() as connection:
            # Another process may have been faster.
            if _revision(connection) is None:
                if tables := inspect(connection).get_table_names():
                    raise StoreError(f"the ledger {self.path} failed: table {tables[0]} already exists; it is another program's")
                metadata.create_all(connection)
                connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)"))
                connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})

    def _migrate(self, current: str) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current not in known:
            raise StoreError(f"the ledger {self.path} has the version {current}, this program knows {HEAD}: use a newer swrbatch")
        with self.write() as connection:
            # Another process may have been faster.
            if _revision(connection) != HEAD:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def _engine(path: str) -> Engine:
    engine = create_engine(URL.create("sqlite+pysqlite", database=os.path.abspath(path)), connect_args={"timeout": _BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        # The driver's own idea of transactions would begin too late: ours begin with the statement below.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        options = connection.get_execution_options()
        if options.get("swrbatch_write", False):
            _begin_writing(cast(sqlite3.Connection, connection.connection.driver_connection), options.get("swrbatch_cancel"))
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _begin_writing(connection: sqlite3.Connection, cancel: Cancel | None) -> None:
    """Wait for other writers, but not in one piece: SQLite does so deaf to signals."""
    end = time.monotonic() + _BUSY_SECONDS
    connection.execute(f"PRAGMA busy_timeout = {int(_ATTEMPT_SECONDS * 1000)}")
    try:
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as e:
                if "locked" not in str(e) or time.monotonic() > end:
                    raise
            if cancel is not None:
                cancel.check()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
