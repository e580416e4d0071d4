"""The cluster's certificate authority, its certificates, and the kubeconfigs made of them."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_DAYS = "3650"
# Debian's openssl.cnf would make an authority of every certificate.
_CONFIGURATION = "[req]\ndistinguished_name = name\n[name]\n"


@dataclass(frozen=True)
class KeyPair:
    """A private key and what proves it."""

    certificate: Path
    key: Path


class Authority:
    """Signs for everybody in the cluster."""

    def __init__(self, folder: Path, server: str) -> None:
        """:param server: the API server's URL."""
        self._folder = folder
        self._server = server
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "openssl.cnf").write_text(_CONFIGURATION)
        self.own = self._made("ca", "/CN=practicus-test-cluster", ["basicConstraints=critical,CA:TRUE"], signed=False)
        self.accounts = self._accounts()

    @property
    def certificate(self) -> Path:
        return self.own.certificate

    def issue(self, name: str, group: str = "", *, file: str = "", addresses: Sequence[str] = ()) -> KeyPair:
        """A certificate for a user (of a group), that is good for a server at these addresses as well."""
        subject = (f"/O={group}" if group else "") + f"/CN={name}"
        extensions = ["basicConstraints=critical,CA:FALSE", "extendedKeyUsage=clientAuth,serverAuth"]
        if addresses:
            kinds = (f"{'IP' if _is_numeric(address) else 'DNS'}:{address}" for address in addresses)
            extensions.append(f"subjectAltName={','.join(kinds)}")
        return self._made(file or name.replace(":", "-"), subject, extensions)

    def kubeconfig(self, name: str, group: str = "") -> str:
        """One self-contained file (JSON, which is YAML too) with which that user talks to the API server."""
        pair = self.issue(name, group)
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [
                    {
                        "name": "practicus-test",
                        "cluster": {"server": self._server, "certificate-authority-data": _base64(self.certificate)},
                    }
                ],
                "users": [
                    {
                        "name": name,
                        "user": {
                            "client-certificate-data": _base64(pair.certificate),
                            "client-key-data": _base64(pair.key),
                        },
                    }
                ],
                "contexts": [{"name": "practicus-test", "context": {"cluster": "practicus-test", "user": name}}],
                "current-context": "practicus-test",
            },
            indent=2,
        )

    def _made(self, file: str, subject: str, extensions: Sequence[str], *, signed: bool = True) -> KeyPair:
        pair = KeyPair(self._folder / f"{file}.crt", self._folder / f"{file}.key")
        if pair.certificate.exists():
            return pair
        aside = pair.certificate.with_suffix(".new")
        command = ["openssl", "req", "-x509", "-config", str(self._folder / "openssl.cnf"), "-days", _DAYS, "-nodes"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", subject]
        command += ["-keyout", str(pair.key), "-out", str(aside)]
        for extension in extensions:
            command += ["-addext", extension]
        if signed:
            command += ["-CA", str(self.own.certificate), "-CAkey", str(self.own.key)]
        subprocess.run(command, check=True, capture_output=True)
        aside.rename(pair.certificate)
        return pair

    def _accounts(self) -> KeyPair:
        """The key that signs the tokens of ServiceAccounts, and its public half."""
        pair = KeyPair(self._folder / "service-accounts.pub", self._folder / "service-accounts.key")
        if not pair.certificate.exists():
            command = ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]
            subprocess.run([*command, "-out", str(pair.key)], check=True, capture_output=True)
            command = ["openssl", "pkey", "-in", str(pair.key), "-pubout", "-out", str(pair.certificate)]
            subprocess.run(command, check=True, capture_output=True)
        return pair


def _is_numeric(address: str) -> bool:
    return address[0].isdigit() or ":" in address


def _base64(file: Path) -> str:
    return base64.b64encode(file.read_bytes()).decode()
