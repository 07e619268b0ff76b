"""Makes signatures.json and mnemonics.json with an independent implementation.

    python3 -m venv venv && venv/bin/pip install eth-keys==0.8.0 eth-account==0.14.0
    venv/bin/python make.py

eth-keys (its own pure Python secp256k1; no coincurve installed) signs 32-byte digests by RFC 6979 with
low s, so r, s and v are the same bytes for everyone. eth-account derives keys from mnemonics. The
messages are written here from their description, not by our code. Run again, the files do not change.
"""

import hashlib
import json
import pathlib

from eth_account import Account
from eth_account.hdaccount.mnemonic import Mnemonic
from eth_keys import keys
from eth_keys.backends import NativeECCBackend

HERE = pathlib.Path(__file__).parent
ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
BACKEND = NativeECCBackend()


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def write(name, vectors):
    (HERE / name).write_text(json.dumps(vectors, indent=1) + "\n")


def signature(number, secret, fields):
    installation, cluster, instance, method, path, body, time_ms, nonce = fields
    body_sha256 = hashlib.sha256(body.encode()).hexdigest()
    message = "\n".join(
        ["form-request-v1", installation, f"{cluster} {instance}", method, path, body_sha256, str(time_ms), nonce]
    )
    key = keys.PrivateKey(secret, backend=BACKEND)
    signed = key.sign_msg_hash(digest(message))
    assert 0 < signed.s <= ORDER // 2 and signed.v in (0, 1)
    assert signed.recover_public_key_from_msg_hash(digest(message)) == key.public_key
    return {
        "private_key": secret.hex(),
        "address": key.public_key.to_canonical_address().hex(),
        "installation": installation,
        "cluster": cluster,
        "instance": instance,
        "method": method,
        "path": path,
        "body": body,
        "time_ms": time_ms,
        "nonce": nonce,
        "message": message,
        "sha256": digest(message).hex(),
        "r": f"{signed.r:064x}",
        "s": f"{signed.s:064x}",
        "high_s": f"{ORDER - signed.s:064x}",
        "v": signed.v,
    }


def mnemonic(phrase):
    account = Account.from_mnemonic(phrase, account_path="m/44'/60'/0'/0/0")
    return {"mnemonic": phrase, "private_key": bytes(account.key).hex(), "address": account.address[2:].lower()}


def main():
    Account.enable_unaudited_hdwallet_features()

    secrets = [(1).to_bytes(32, "big"), (2).to_bytes(32, "big"), (ORDER - 1).to_bytes(32, "big")]
    secrets += [digest(f"private key {n}") for n in range(13)]
    vectors = []
    for number, secret in enumerate(secrets):
        concerns_nothing = number % 4 == 3
        ident = lambda what: "-" if concerns_nothing else digest(f"{what} {number}").hex()[:40]
        fields = (
            digest(f"installation {number}").hex()[:32],
            ident("cluster"),
            ident("instance"),
            ["POST", "GET", "DELETE", "POST"][number % 4],
            ["/api/v1/commit", "/api/v1/instances/x/console?rows=24&cols=80", "/api/v1/instances/x", "/api/v1/instances"][
                number % 4
            ],
            ["", '{"name":"demo-1"}', "\u00fc"][number % 3],
            1_795_000_000_000 + number * 977,
            digest(f"nonce {number}").hex()[:32],
        )
        vectors.append(signature(number, secret, fields))
    write("signatures.json", vectors)

    words = Mnemonic()
    phrases = ["test " * 11 + "junk", "abandon " * 11 + "about", "zoo " * 23 + "vote"]
    for bits in (128, 160, 192, 224, 256):
        phrases += [words.to_mnemonic(digest(f"entropy {bits} {n}")[: bits // 8]) for n in range(2)]
    write("mnemonics.json", [mnemonic(phrase) for phrase in phrases])


main()
