"""RSA signatures of digest files: PKCS #1 v1.5 over SHA-256 (`SHA256withRSA`), in hexadecimal, as CTS signs.

What is signed is the text `digest_end_time + digest_object + hex(hash of the compressed file) + previous_digest_signature`
(CTS user guide, "Verifying Trace File Integrity").

The library `cryptography` is an extra: `pip install 'swrbatch[sign]'`. Nothing else of swrbatch needs it.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, Final

from ..errors import StoreError, UsageError, printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

ALGORITHM: Final = "SHA256withRSA"
LEAST_BITS: Final = 2048


class Signer:
    """A private key, from a PEM file without a password."""

    def __init__(self, path: str) -> None:
        """UsageError when the file holds no RSA key of 2,048 bits or more; StoreError without the library."""
        serialization = _library().serialization
        raw = _read(path, "--sign-key")
        try:
            key: Any = serialization.load_pem_private_key(raw, password=None)
        except TypeError as e:
            raise UsageError(f"--sign-key {printable(path)}: it is locked by a password; give a key without one") from e
        except Exception as e:  # the library raises its own kinds, and they differ between its versions
            raise UsageError(f"--sign-key {printable(path)}: no private key in PEM form") from e
        self._key: RSAPrivateKey = _rsa(key, "--sign-key", path)

    def sign(self, text: str) -> str:
        """The signature of a text, in hexadecimal."""
        library = _library()
        return self._key.sign(text.encode(), library.padding.PKCS1v15(), library.hashes.SHA256()).hex()


class Verifier:
    """A public key: PEM (a key or a certificate), DER, or the bare base64 of DER that CTS's documentation prints."""

    def __init__(self, path: str) -> None:
        """UsageError when the file holds no RSA key of 2,048 bits or more; StoreError without the library."""
        raw = _read(path, "--public-key")
        self._key: RSAPublicKey = _rsa(_public_key(raw, path), "--public-key", path)

    def verify(self, text: str, signature: str) -> bool:
        """Whether this is the signature (hexadecimal) of the text."""
        from cryptography.exceptions import InvalidSignature

        library = _library()
        try:
            self._key.verify(bytes.fromhex(signature), text.encode(), library.padding.PKCS1v15(), library.hashes.SHA256())
        except (ValueError, InvalidSignature):
            return False
        return True


class _Library:
    def __init__(self) -> None:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import padding, rsa

        self.x509, self.hashes, self.serialization, self.padding, self.rsa = x509, hashes, serialization, padding, rsa


def _library() -> _Library:
    try:
        return _Library()
    except ImportError as e:
        raise StoreError("signatures need the library cryptography: pip install 'swrbatch[sign]'") from e


def _read(path: str, option: str) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(1 << 20)
    except OSError as e:
        raise UsageError(f"{option} {printable(path)}: {e.strerror}") from e


def _public_key(raw: bytes, path: str) -> Any:
    library = _library()
    forms: list[Any] = [
        lambda: library.serialization.load_pem_public_key(raw),
        lambda: library.x509.load_pem_x509_certificate(raw).public_key(),
        lambda: library.serialization.load_der_public_key(raw),
        lambda: library.serialization.load_der_public_key(base64.b64decode(b"".join(raw.split()), validate=True)),
    ]
    for load in forms:
        try:
            return load()
        except (ValueError, binascii.Error):
            continue
    raise UsageError(f"--public-key {printable(path)}: no public key (PEM, DER, or its base64)")


def _rsa(key: Any, option: str, path: str) -> Any:
    library = _library()
    if not isinstance(key, library.rsa.RSAPrivateKey | library.rsa.RSAPublicKey):
        raise UsageError(f"{option} {printable(path)}: not an RSA key, and CTS signs with RSA")
    if key.key_size < LEAST_BITS:
        raise UsageError(f"{option} {printable(path)}: a key of {key.key_size} bits; {LEAST_BITS} is the least")
    return key
