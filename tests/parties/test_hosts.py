"""Keys, certificates and the file of hosts: what is made, and what is refused before anything runs."""

import datetime
import subprocess
import sys

import child
import pytest

from mpcc.cli.app import call
from mpcc.compiler.errors import EngineError, MpccError
from mpcc.runtime.parties.hosts import site_of
from mpcc.runtime.parties.keys import make_identity

ROLES = ("client", "provider", "helper")


@pytest.fixture
def keys(tmp_path, capsys):
    """A folder with the keys of all roles, and hosts.toml from what `mpcc keys` printed."""
    for role in ROLES:
        assert call(["keys", "--role", role, "-o", str(tmp_path), "--days", "3"]) == 0
    printed = capsys.readouterr().out.splitlines()
    kept = [line for line in printed if line.startswith("[") or " = " in line]
    (tmp_path / "hosts.toml").write_text("\n".join(kept) + "\n")
    return tmp_path


def refused(keys, match, error=EngineError, role="client"):
    with pytest.raises(error, match=match) as caught:
        site_of(keys / "hosts.toml", role, ROLES)
    assert "\n" not in str(caught.value)


def change(keys, old, new):
    path = keys / "hosts.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_keys_and_hosts(keys):
    site = site_of(keys / "hosts.toml", "provider", ROLES)
    assert site.addresses == ("127.0.0.1:5000", "127.0.0.1:5001", "127.0.0.1:5002")
    assert list(site.identities) == ["provider"] and sorted(site.certificates) == ["P0", "P1", "P2"]
    assert (keys / "provider.key").stat().st_mode & 0o777 == 0o600


def test_no_key_is_overwritten(keys, capsys):
    before = (keys / "client.key").read_bytes()
    assert call(["keys", "--role", "client", "-o", str(keys)]) == 2
    assert "there is a key already" in capsys.readouterr().err and (keys / "client.key").read_bytes() == before


def test_unknown_role(tmp_path, capsys):
    assert call(["keys", "--role", "boss", "-o", str(tmp_path)]) == 2
    assert "there is no role 'boss'" in capsys.readouterr().err


def test_an_expired_certificate(keys):
    (keys / "helper.pem").write_bytes(make_identity(2, datetime.timedelta(hours=-1)).certificate)
    fingerprint_of_file(keys, "helper")
    refused(keys, "certificate of the helper expired on .*mpcc keys --role helper")


def test_a_certificate_of_another_role(keys):
    (keys / "helper.pem").write_bytes((keys / "provider.pem").read_bytes())
    fingerprint_of_file(keys, "helper")
    refused(keys, "certificate of the helper is one of another role")


def fingerprint_of_file(keys, role):
    """Make hosts.toml agree with the certificate that stands there."""
    from mpcc.runtime.parties.keys import fingerprint

    lines = (keys / "hosts.toml").read_text().splitlines()
    place = lines.index(f"[{role}]")
    at = next(i for i in range(place, len(lines)) if lines[i].startswith("fingerprint"))
    lines[at] = f'fingerprint = "{fingerprint((keys / f"{role}.pem").read_bytes())}"'
    (keys / "hosts.toml").write_text("\n".join(lines) + "\n")


def test_a_foreign_certificate(keys):
    (keys / "helper.pem").write_bytes(make_identity(2).certificate)
    refused(keys, "certificate of the helper is not the one expected: its fingerprint is sha256:")


def test_a_foreign_key(keys):
    (keys / "client.key").write_bytes((keys / "helper.key").read_bytes())
    refused(keys, "key of the client does not belong to its certificate")


def test_a_key_that_others_can_read(keys):
    (keys / "client.key").chmod(0o644)
    refused(keys, "key of the client can be read by others.*chmod 600")


@pytest.mark.parametrize(
    "spoil, match",
    [
        (lambda keys: (keys / "helper.pem").unlink(), "cannot read the certificate of the helper"),
        (lambda keys: (keys / "helper.pem").write_text("x"), "certificate of the helper is corrupt"),
        (lambda keys: (keys / "client.key").unlink(), "cannot read the key of the client"),
        (lambda keys: (keys / "client.key").write_text("x"), "key of the client is corrupt"),
    ],
)
def test_spoilt_files(keys, spoil, match):
    spoil(keys)
    refused(keys, match)


@pytest.mark.parametrize(
    "old, new, match",
    [
        ("[helper]", "[other]", r"has no \[helper\]"),
        ("[helper]", "[helper", "is not TOML"),
        ("port = 5001", "port = 70000", r"\[provider\] has a host or port that cannot be"),
        ("port = 5001", "port = '5001'", r"\[provider\] has no port"),
        ("port = 5001", "port = 5000", "two roles have the same host and port"),
        ('host = "127.0.0.1"', 'host = "a b"', "host or port that cannot be"),
    ],
)
def test_a_wrong_file_of_hosts(keys, old, new, match):
    change(keys, old, new)
    refused(keys, match, MpccError)


def test_a_role_the_protocol_does_not_have(keys):
    refused(keys, "there is no role 'dealer'", MpccError, "dealer")


def test_provider_and_helper_need_no_torch():
    modules = (
        "mpcc.cli.app",
        "mpcc.runtime.parties.hosts",
        "mpcc.runtime.engines",
        "mpcc.program",
        "mpcc.exchange",
        "mpcc.report.session",
        "mpcc.compiler.cost",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=child.SLOW_START).returncode == 0
