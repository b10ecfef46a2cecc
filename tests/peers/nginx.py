"""nginx in front of a program of a suite: docs/nginx.conf with its addresses replaced.

As a program, `nginx.py DIR [--no-tls]`: prints `listening on URL`, reads the upstream's URL, prints `serving`, and
ends with its standard input.
"""
import argparse
import contextlib
import datetime
import ipaddress
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from programs import DEADLINE, HERE

CONFIG = HERE.parent.parent / "docs" / "nginx.conf"
AROUND = """\
daemon off;
pid nginx.pid;
error_log stderr warn;
events {}
http {
    access_log off;
    client_body_temp_path client_body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include vestibule.conf;
}
"""


class Nginx:
    """Has its port before it runs, because the program behind it must know its public origin: `url` is
    there from the beginning, `start(upstream)` makes it answer. `ca` is the file with its authority."""

    def __init__(self, directory: pathlib.Path, tls: bool = True) -> None:
        self.directory, self.tls = directory, tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}"
        self.ca = directory / "ca.pem"
        self.child: subprocess.Popen | None = None
        certificates(directory)

    def start(self, upstream: str) -> None:
        text = CONFIG.read_text()
        for old, new in (("server 127.0.0.1:4000;", f"server {urllib.parse.urlsplit(upstream).netloc};"), ("listen 443 ssl;", f"listen 127.0.0.1:{self.port}{' ssl' * self.tls};"),
                         ("server_name gateway.example.com;", "server_name localhost;"),
                         ("/etc/ssl/certs/gateway.example.com.pem", str(self.directory / "server.pem")),
                         ("/etc/ssl/private/gateway.example.com.key", str(self.directory / "server.key"))):
            assert text.count(old) == 1, f"docs/nginx.conf holds {old!r} {text.count(old)} times"
            text = text.replace(old, new)
        (self.directory / "vestibule.conf").write_text(text)
        (self.directory / "nginx.conf").write_text("user root;\n" * (os.geteuid() == 0) + AROUND)
        program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        assert program, "nginx is not installed: tests/peers/setup.sh installs it"
        # In $NGINX a running nginx hands its sockets to its successor; so it takes ours, and no port is guessed.
        with open(self.directory / "log", "wb") as log:
            self.child = subprocess.Popen([program, "-p", self.directory, "-c", "nginx.conf"], env=os.environ | {"NGINX": f"{self.listener.fileno()};"},
                                          pass_fds=[self.listener.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.listener.close()
        self._await()

    def _await(self) -> None:
        trusted = ssl.create_default_context(cafile=str(self.ca))
        until = time.monotonic() + DEADLINE
        while True:
            assert self.child.poll() is None, f"nginx ended:\n{self.log}"
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as plain:
                    with trusted.wrap_socket(plain, server_hostname="localhost") if self.tls else contextlib.nullcontext():
                        return
            except OSError as e:
                assert time.monotonic() < until, f"nginx does not answer: {e}\n{self.log}"
                time.sleep(0.02)

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()

    def stop(self) -> None:
        self.listener.close()
        if self.child:
            self.child.terminate()  # the worker is a child of nginx: killed, it would leave that behind
            try:
                self.child.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def certificates(directory: pathlib.Path) -> None:
    """An authority, ca.pem, and a certificate by it for localhost: server.pem and server.key."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def certificate(name: str, key, issuer: str, signer, *extensions):
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        made = x509.CertificateBuilder(issuer_name=named(issuer), subject_name=named(name), public_key=key.public_key(), serial_number=x509.random_serial_number(),
                                       not_valid_before=now - datetime.timedelta(hours=1), not_valid_after=now + datetime.timedelta(days=7))
        for extension, critical in extensions:
            made = made.add_extension(extension, critical)
        return made.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def usage(of_authority: bool) -> x509.KeyUsage:
        return x509.KeyUsage(digital_signature=not of_authority, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
                             key_cert_sign=of_authority, crl_sign=of_authority, encipher_only=False, decipher_only=False)

    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issued_by = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    (directory / "ca.pem").write_bytes(certificate(
        "Peers CA", authority, "Peers CA", authority, (x509.BasicConstraints(ca=True, path_length=0), True), (usage(True), True),
        (x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), False)))
    (directory / "server.pem").write_bytes(certificate(
        "localhost", key, "Peers CA", authority, (x509.BasicConstraints(ca=False, path_length=None), True), (usage(False), True), (issued_by, False),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False), (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)))
    (directory / "server.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("directory", type=pathlib.Path)
    p.add_argument("--no-tls", action="store_true")
    args = p.parse_args()
    proxy = Nginx(args.directory, tls=not args.no_tls)
    try:
        print(f"listening on {proxy.url}", flush=True)
        if upstream := sys.stdin.readline().strip():
            proxy.start(upstream)
            print("serving", flush=True)
            sys.stdin.read()
    finally:
        proxy.stop()


if __name__ == "__main__":
    main()
