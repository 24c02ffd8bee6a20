"""Publishing to Modelers: the real openmind_hub, in openMind's environment, pushes to a stand-in that speaks https."""

import datetime
import ipaddress
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.published_project import WEIGHTS, build_project
from tests.standin_hub import ROOT, client_environment, served
from tests.standin_uploads import UploadHub

pytestmark = pytest.mark.openmind
TOKEN = "0123456789abcdef" * 2


class SecureHub(UploadHub):
    """The same over https, which the client insists on."""

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"


def certificate(folder: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(names, critical=False).sign(key, hashes.SHA256())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path = folder / "certificate.pem"
    path.write_bytes(
        signed.public_bytes(serialization.Encoding.PEM) + key.private_bytes(serialization.Encoding.PEM, *form)
    )
    return path


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[SecureHub]:
    hub = SecureHub()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    hub.socket = context.wrap_socket(hub.socket, server_side=True)
    with served(hub) as server:
        yield server


def test_a_model_and_its_cards_arrive_to_the_byte(tmp_path: Path, hub: SecureHub) -> None:
    (tmp_path / "project").mkdir()
    project = build_project(tmp_path / "project")
    environment = client_environment(tmp_path / "home", hub.address) | {
        "OPENMIND_HUB_ENDPOINT": hub.address,
        "OPENMIND_CLI": os.environ.get("OPENMIND_CLI") or str(ROOT / ".venv-openmind" / "bin" / "openmind-cli"),
        "MODELERS_TOKEN": TOKEN,
        "REQUESTS_CA_BUNDLE": str(tmp_path / "certificate.pem"),
    }
    command = [sys.executable, "-m", "stages.lib.publishing", "model", "filtered", "--to", "modelers"]
    command += ["--repo", "someone/tiny", "--force", "dirty"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(hub.files["someone/tiny"]) == {"README.md", "README.zh-CN.md", "config.json", "model.safetensors"}
    assert hub.files["someone/tiny"]["model.safetensors"] == WEIGHTS
    assert hub.commits["someone/tiny"] == 1
    assert (hub.made["someone/tiny"]["visibility"], hub.made["someone/tiny"]["type"]) == ("private", "model")
    assert TOKEN in hub.tokens
    assert TOKEN not in done.stdout + done.stderr
