"""A certificate authority and a service account for one run of the simulator."""

import json
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def _pem(key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(name: str, key, issuer: str, issuer_key, *extensions: tuple[x509.ExtensionType, bool]):
    """A certificate signed by issuer_key, valid from yesterday to tomorrow."""
    now = datetime.now(UTC)

    def common_name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    builder = x509.CertificateBuilder(
        common_name(issuer), common_name(name), key.public_key(), x509.random_serial_number()
    )
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer_key, hashes.SHA256())


def create_context(folder: Path, hosts: Sequence[str]) -> ssl.SSLContext:
    """A server's context for these hosts. Writes ca.pem, which a client has to trust, to `folder`."""
    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    identifier = x509.SubjectKeyIdentifier.from_public_key(root.public_key())
    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    root_name = "the simulator's authority"
    authority = _certificate(
        root_name, root, root_name, root, (x509.BasicConstraints(True, None), True), (identifier, False), (usage, True)
    )
    certificate = _certificate(
        hosts[0],
        own,
        root_name,
        root,
        (x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), False),
        (x509.BasicConstraints(False, None), True),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
        (x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False),
    )
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "server.pem").write_bytes(_pem(own) + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


def write_credentials(path: Path) -> None:
    """The key file of a service account, in the format of both clients. The simulator accepts any signature."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    account = {
        "type": "service_account",
        "project_id": "simulated",
        "private_key_id": "1",
        "private_key": _pem(key).decode(),
        "client_email": "tests@simulated.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": "https://oauth2.googleapis.com/token",
    }
    path.write_text(json.dumps(account))
