"""Digest files: each vouches for the trace files of its hour and for the digest file before it. Written, and verified offline.

    CloudTraces/<region>/<Y>/<M>/<D>/<tracker>/<service>/…          trace files
    CloudTraces/<region>/<Y>/<M>/<D>/<tracker>/Digest/<service>/…   digest files, one an hour, also when nothing happened

Fields, key layout and the signed text are those of CTS (user guide, "Digest Files" and "Verifying Trace File Integrity"). CTS
hashes with MD5; ours name SHA-256. The signature of a digest file stands in the one after it, and that of the newest nowhere
in CTS's files (OBS keeps it as the object's metadata `meta-signature`): ours lies beside each file as `<file>.signature`, and
a downloaded chain can be given its newest one there, too.
"""

from __future__ import annotations

import datetime
import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from .signing import ALGORITHM, Signer

HOUR: Final = 3600
SIGNATURE: Final = ".signature"
TRACKER: Final = "swrbatch"
SERVICE: Final = "SWR"
MOST_EMPTY: Final = 7 * 24
"""Empty hours that one run makes up for; what lies further back becomes one longer digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The newest digest file of a chain: its key, its SHA-256, its signature ("" without), the second where its hour ends."""

    object: str
    sha256: str
    signature: str
    end: int

    @classmethod
    def of(cls, value: dict[str, Any] | None) -> Head | None:
        return cls(**value) if value else None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A digest file to be written: its key, its bytes, and what it makes the head of its chain."""

    name: str
    data: bytes
    head: Head


def safe_region(region: str) -> str:
    """A region as keys may hold it."""
    return re.sub(r"[^a-z0-9-]+", "-", region.lower()).strip("-") or "local"


def key(region: str, second: int, kind: str, unique: str = "") -> str:
    """The key of a file uploaded at this second; `kind` is `CloudTrace` or `CloudTrace-Digest`."""
    moment = datetime.datetime.fromtimestamp(second, tz=datetime.UTC)
    folder = f"CloudTraces/{region}/{moment:%Y/%-m/%-d}/{TRACKER}/{'Digest/' if kind.endswith('Digest') else ''}{SERVICE}"
    return f"{folder}/{TRACKER}_{kind}_{region}_{stamp(second)}{unique and '_' + unique}.json.gz"


def stamp(second: int) -> str:
    """A time as digests and keys write it: `2017-03-28T02-09-17Z`."""
    return datetime.datetime.fromtimestamp(second, tz=datetime.UTC).strftime("%Y-%m-%dT%H-%M-%SZ")


def signed_text(end: str, name: str, digest: str, previous_signature: str) -> str:
    """What the signature of a digest file signs."""
    return end + name + digest + previous_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestWriter:
    """Goes on with a chain. `bucket` is the destination's name, `account` stands for CTS's project_id."""

    bucket: str
    account: str
    region: str
    signer: Signer | None

    def hours(self, head: Head | None, files: Sequence[tuple[str, str]], now: int) -> Iterator[Written]:
        """The digest files that a run adds at second `now`: (key, SHA-256) of its trace files stand in the last one.

        Without trace files only whole hours are closed.
        """
        begin = head.end if head else now - HOUR
        ends = list(range(begin + HOUR, now if files else now + 1, HOUR))[-MOST_EMPTY:]
        for end in ends:
            written = self._one(head, begin, end, ())
            yield written
            head, begin = written.head, end
        if files:
            yield self._one(head, begin, now, files)

    def _one(self, head: Head | None, begin: int, end: int, files: Sequence[tuple[str, str]]) -> Written:
        name = key(self.region, end, "CloudTrace-Digest")
        value = {
            "project_id": self.account,
            "digest_start_time": stamp(begin),
            "digest_end_time": stamp(end),
            "digest_bucket": self.bucket,
            "digest_object": name,
            "digest_signature_algorithm": ALGORITHM if self.signer else "",
            "digest_end": False,
            "previous_digest_bucket": self.bucket if head else "",
            "previous_digest_object": head.object if head else "",
            "previous_digest_hash_value": head.sha256 if head else "",
            "previous_digest_hash_algorithm": "SHA-256" if head else "",
            "previous_digest_signature": head.signature if head else "",
            "previous_digest_end": False,
            "log_files": [
                {"bucket": self.bucket, "object": file, "log_hash_value": digest, "log_hash_algorithm": "SHA-256"}
                for file, digest in files
            ],
        }
        data = gzip.compress(json.dumps(value, ensure_ascii=False).encode(), mtime=0)
        digest = hashlib.sha256(data).hexdigest()
        previous = str(value["previous_digest_signature"])
        signature = self.signer.sign(signed_text(stamp(end), name, digest, previous)) if self.signer else ""
        return Written(name=name, data=data, head=Head(object=name, sha256=digest, signature=signature, end=end))
