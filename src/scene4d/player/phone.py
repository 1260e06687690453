"""Reaching this machine from a phone: its address, a certificate made on the spot, a QR code."""

from __future__ import annotations

import datetime
import io
import ipaddress
import os
import socket
from pathlib import Path

from scene4d.errors import DataError, UsageError
from scene4d.optional import import_optional, why_not

HTTPS_FROM_SPLATS = 500_000
"""With more splats, WebGPU's sorting on the GPU is worth the browser's warning about a certificate
that nobody has signed. A judgement: a phone's processor sorts half a million splats in less time
than it takes to draw them."""
CERTIFICATE_DAYS = 7


def lan_address() -> str:
    """This machine's address in the local network. Raises :class:`DataError` when it has none.

    Connecting a UDP socket sends nothing: the system only looks up which of its addresses it would
    send from. The destination is one reserved for documentation (RFC 5737).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address = str(probe.getsockname()[0])
        except OSError:
            address = "0.0.0.0"
    if ipaddress.ip_address(address).is_unspecified or ipaddress.ip_address(address).is_loopback:
        raise DataError(
            "this machine is in no network that a phone could be in",
            fix="join the phone's Wi-Fi, or name the address: --host ADDRESS",
        )
    return address


def can_make_certificates() -> bool:
    """Whether the package 'cryptography' is there and loads."""
    return why_not("cryptography.x509") is None


def make_certificate(path: Path, address: str) -> str:
    """Writes a self-signed certificate for ``address`` (a number or a name) and its key as PEM to
    ``path``.

    The key is P-256, readable by this user alone. Returns the SHA-256 fingerprint, as browsers
    show it. Raises :class:`MissingExtraError`.
    """
    import_optional("cryptography.x509", extra="viewer", needed_for="HTTPS")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"scene4d on {address}"[:64])])
    now = datetime.datetime.now(datetime.timezone.utc)
    server = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    host: x509.GeneralName
    try:
        host = x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        try:
            host = x509.DNSName(address)
        except ValueError as error:
            raise UsageError(f"there is no certificate for {address!r}: no plain name") from error
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # phones' clocks may be behind
        .not_valid_after(now + datetime.timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([host]), critical=False)
        .add_extension(server, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def qr_code(text: str) -> str | None:
    """``text`` as a QR code of half blocks for a terminal; None without the package 'segno'."""
    if why_not("segno") is not None:
        return None
    import segno

    drawn = io.StringIO()
    segno.make(text, error="m", micro=False).terminal(drawn, border=2, compact=True)
    return drawn.getvalue()
