"""Starts an AWS-speaking server for the tests: moto, with what a fleet of devices needs of AWS IoT put right.

    aws.py [--port PORT] [--ca-file FILE]

Prints `listening on http://127.0.0.1:PORT` when ready and serves until it is ended. State lives in memory and is gone
with the process, or after `POST /moto-api/reset`.

moto issues every device certificate for a key of its own and from no real authority, so that no device could use it.
Here a certificate is issued for the key in the signing request, by an authority whose certificate is written to FILE,
and its id is the SHA-256 of its DER form, as in AWS.
"""

import argparse
import datetime
import signal
import sys

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from moto.core.config import default_user_config
from moto.iot import models as iot
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

CA_LIFETIME = datetime.timedelta(days=3650)
DEVICE_LIFETIME = datetime.timedelta(days=365)
# Machines disagree a little about the time.
CLOCK_SKEW = datetime.timedelta(hours=1)


class DeviceAuthority:
    """The certificate authority that AWS IoT has inside."""

    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test IoT CA")])
        self.certificate = (
            self._certificate(self.name, self.key.public_key(), CA_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def issue(self, request):
        """A client certificate for the key and the name of a signing request."""
        return (
            self._certificate(request.subject, request.public_key(), DEVICE_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def _certificate(self, subject, public_key, lifetime):
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(now + lifetime)
        )


def _key_usage(signs_certificates):
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def pem(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


def mend_iot(authority):
    """Makes moto issue certificates through `authority`."""

    def create_certificate_from_csr(backend, csr, set_as_active):
        try:
            request = x509.load_pem_x509_csr(csr.encode())
            is_valid = request.is_signature_valid
        except (ValueError, UnsupportedAlgorithm):
            is_valid = False
        if not is_valid:
            raise iot.InvalidRequestException("The certificate signing request is invalid")
        return backend.register_certificate(
            pem(authority.issue(request)).decode(),
            ca_certificate_pem=None,
            set_as_active=set_as_active,
            status="INACTIVE",
        )

    # A renamed method would leave moto as it was, silently.
    assert hasattr(iot.IoTBackend, "create_certificate_from_csr")
    iot.IoTBackend.create_certificate_from_csr = create_certificate_from_csr
    default_user_config["iot"] = {"use_valid_cert": True}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0 takes any free one")
    parser.add_argument("--ca-file", help="where to write the device authority's certificate")
    options = parser.parse_args()

    authority = DeviceAuthority()
    mend_iot(authority)
    if options.ca_file:
        with open(options.ca_file, "wb") as file:
            file.write(pem(authority.certificate))

    server = ThreadedMotoServer("127.0.0.1", options.port, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"listening on http://{host}:{port}", flush=True)
    ended_by = signal.sigwait({signal.SIGTERM, signal.SIGINT})
    sys.exit(0 if ended_by == signal.SIGTERM else 130)


if __name__ == "__main__":
    main()
