"""Certificates of the aggregated API: an authority of our own, and what it signs for the serving Service.

Pure but for randomness; the time is an argument. Everything is PEM, as Secrets and the TLS library have it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)

AUTHORITY_LIFE = 3650 * DAY
LEAF_LIFE = 365 * DAY
"""Well within what TLS clients accept (825 days), and renewed by itself."""

RENEWED_AT = 1 / 3
"""Share of its life that a certificate has left when the next one is made: four months to notice a failure."""

AHEAD = datetime.timedelta(minutes=5)
"""Valid from before now: the API server's clock may be behind ours."""

COMMON_NAME = "drift-operator"


@dataclass(frozen=True, slots=True)
class Bundle:
    """What the Secret holds."""

    authority: bytes
    """Certificates that clients trust, the signing one first; while one is replaced, its forerunner too."""
    authority_key: bytes
    certificate: bytes
    key: bytes

    KEYS = ("ca.crt", "ca.key", "tls.crt", "tls.key")
    """Of the Secret, in the order of the fields."""

    def data(self) -> dict[str, bytes]:
        fields = (self.authority, self.authority_key, self.certificate, self.key)
        return dict(zip(self.KEYS, fields, strict=True))

    @classmethod
    def of(cls, data: Mapping[str, bytes]) -> Bundle | None:
        """None where a part is missing."""
        if not all(data.get(key) for key in cls.KEYS):
            return None
        return cls(*(data[key] for key in cls.KEYS))


def make(names: Sequence[str], now: datetime.datetime) -> Bundle:
    """A new authority and its first leaf for these DNS names."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"{COMMON_NAME} authority")
    authority = (
        _builder(subject, subject, key.public_key(), now, AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _signed(authority, key, b"", names, now)


def renewed(bundle: Bundle | None, names: Sequence[str], now: datetime.datetime) -> Bundle:
    """The same bundle where it is good; else one with a new leaf, or with a new authority where that one ends, is
    unreadable or missing. The authority before stays among those to trust: replicas may still serve with its leaf.
    """
    if bundle is None:
        return make(names, now)
    try:
        authorities = x509.load_pem_x509_certificates(bundle.authority)
        authority_key = serialization.load_pem_private_key(bundle.authority_key, None)
        leaf = x509.load_pem_x509_certificate(bundle.certificate)
        key = serialization.load_pem_private_key(bundle.key, None)
        leaf.verify_directly_issued_by(authorities[0])
        named = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # somebody has edited the Secret; the library's errors for that have no common base
        return make(names, now)
    sound = (
        isinstance(authority_key, ec.EllipticCurvePrivateKey)
        and authority_key.public_key() == authorities[0].public_key()
    )
    if not sound or not _lasts(authorities[0], now):
        made = make(names, now)
        return Bundle(made.authority + _pem(authorities[0]), made.authority_key, made.certificate, made.key)
    same_names = set(named.get_values_for_type(x509.DNSName)) == set(names)
    if same_names and leaf.public_key() == key.public_key() and _lasts(leaf, now):
        return bundle
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    older = b"".join(_pem(one) for one in authorities[1:] if one.not_valid_after_utc > now)
    return _signed(authorities[0], authority_key, older, names, now)


def _signed(
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    older: bytes,
    names: Sequence[str],
    now: datetime.datetime,
) -> Bundle:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _builder(_name(COMMON_NAME), authority.subject, key.public_key(), now, LEAF_LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
        )
        .sign(authority_key, hashes.SHA256())
    )
    return Bundle(_pem(authority) + older, _private(authority_key), _pem(leaf), _private(key))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    life: datetime.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - AHEAD)
        .not_valid_after(now + life)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _lasts(certificate: x509.Certificate, now: datetime.datetime) -> bool:
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    left = certificate.not_valid_after_utc - now
    return certificate.not_valid_before_utc <= now and left > RENEWED_AT * life


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
