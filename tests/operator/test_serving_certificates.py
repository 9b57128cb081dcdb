"""Certificates of the aggregated API: good from the start, replaced in time, trusted all along."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from drift_operator.doors import certificates
from drift_operator.doors.certificates import AUTHORITY_LIFE, LEAF_LIFE, Bundle

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
NAMES = ("metrics.drift.svc", "metrics.drift", "metrics")


def trusted(trusting: Bundle, served: Bundle, now: datetime.datetime, name: str = NAMES[0]) -> bool:
    """As a TLS client judges that was given `trusting`'s authorities."""
    store = Store(x509.load_pem_x509_certificates(trusting.authority))
    verifier = PolicyBuilder().store(store).time(now).build_server_verifier(x509.DNSName(name))
    try:
        verifier.verify(x509.load_pem_x509_certificate(served.certificate), [])
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_new_certificate_is_good_for_the_service_s_names(name: str) -> None:
    made = certificates.make(NAMES, NOW)
    assert trusted(made, made, NOW, name)


def test_it_is_not_good_for_other_names() -> None:
    made = certificates.make(NAMES, NOW)
    assert not trusted(made, made, NOW, "other.drift.svc")


def test_a_clock_that_is_a_little_behind_does_not_mind() -> None:
    made = certificates.make(NAMES, NOW)
    assert trusted(made, made, NOW - datetime.timedelta(minutes=4))


def test_what_is_good_stays_as_it_is() -> None:
    made = certificates.make(NAMES, NOW)
    assert certificates.renewed(made, NAMES, NOW + LEAF_LIFE / 2) is made


def test_a_certificate_is_renewed_well_before_it_ends_by_the_same_authority() -> None:
    made, later = certificates.make(NAMES, NOW), NOW + LEAF_LIFE * 0.7
    renewed = certificates.renewed(made, NAMES, later)
    assert renewed.certificate != made.certificate
    assert renewed.authority == made.authority
    assert trusted(made, renewed, later)


def test_other_names_need_another_certificate() -> None:
    made = certificates.make(NAMES, NOW)
    moved = certificates.renewed(made, ("metrics.elsewhere.svc",), NOW)
    assert trusted(made, moved, NOW, "metrics.elsewhere.svc")


def test_an_authority_is_replaced_while_both_are_trusted() -> None:
    moment, served = NOW, [certificates.make(NAMES, NOW)]
    while served[-1].authority == served[0].authority:
        moment += LEAF_LIFE / 2
        served.append(certificates.renewed(served[-1], NAMES, moment))
    *_, old, new = served
    assert moment < NOW + AUTHORITY_LIFE
    assert trusted(new, new, moment)
    assert trusted(new, old, moment)


def test_nothing_is_made_anew_where_nothing_is_missing() -> None:
    made = certificates.make(NAMES, NOW)
    assert Bundle.of(made.data()) == made


@pytest.mark.parametrize("key", Bundle.KEYS)
def test_a_secret_without_a_part_is_no_bundle(key: str) -> None:
    data = certificates.make(NAMES, NOW).data()
    assert Bundle.of(data | {key: b""}) is None


@pytest.mark.parametrize("part", ["authority", "authority_key", "certificate", "key"])
def test_a_part_that_somebody_has_spoilt_is_made_anew(part: str) -> None:
    spoilt = replace(certificates.make(NAMES, NOW), **{part: b"no PEM"})
    renewed = certificates.renewed(spoilt, NAMES, NOW)
    assert trusted(renewed, renewed, NOW)


def test_keys_that_belong_to_another_certificate_are_made_anew() -> None:
    one, other = certificates.make(NAMES, NOW), certificates.make(NAMES, NOW)
    renewed = certificates.renewed(replace(one, key=other.key), NAMES, NOW)
    assert renewed.key not in (one.key, other.key)


def test_every_authority_is_told_from_those_of_other_programs() -> None:
    made = x509.load_pem_x509_certificates(certificates.make(NAMES, NOW).authority)[0]
    (name,) = made.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert name.value == "drift-operator authority"
