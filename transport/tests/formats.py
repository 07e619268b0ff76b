"""An independent writer of the formats in PROTOCOL.md. It made the golden values in formats.rs:

    pip install blake3 cryptography && python3 formats.py
"""

import struct

from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def u16(n):
    return struct.pack("<H", n)


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def text(b):
    b = b.encode() if isinstance(b, str) else b
    return u32(len(b)) + b


def artifact(name, kind, length, root):
    return text(name) + bytes([kind]) + u64(length) + bytes([root]) * 32


attempt = bytes(range(16))
envelope = attempt + text("ab") + text(b"\x01\x02\x03")
print("control block  ", (u32(len(envelope)) + envelope).hex())

frames = b"\0" + attempt + b"\x66" * 32 + u32(2) + u32(3) + u32(1) + u32(7) + u32(32)
print("frames request ", frames.hex())

parent = b"\x11" * 32
commit = (
    u16(1)
    + text("aa11")
    + b"\x01"
    + parent
    + u32(3)
    + artifact("disk-0", 2, 2 << 30, 0x22)
    + artifact("memory", 0, 512 << 20, 0x33)
    + artifact("state", 1, 1234, 0x44)
    + bytes.fromhex("f39fd6e51aad88f6f4ce6ab8827279cfffb92266")
    + text("hello")
    + u64(1795000000000)
    + text("msg")
    + text("bb22")
    + text("qemu 7.2.0")
)
commit_id = blake3(b"form-commit-v1\0" + commit).digest()
print("commit         ", commit.hex())
print("commit id      ", commit_id.hex())

indexes = [b"index of disk-0", b"index of memory", b"index of state"]
signed = (
    b"form-offer-v1\0"
    + attempt
    + u64(7)
    + commit_id
    + b"\x01"
    + parent
    + u32(len(indexes))
    + b"".join(blake3(i).digest() for i in indexes)
)
# RFC 8032, section 7.1, test 2.
seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
signature = Ed25519PrivateKey.from_private_bytes(seed).sign(signed)
print("node signature ", signature.hex())

offer = commit + signature + b"\x55" * 64 + b"\x01" + text("{}") + u32(len(indexes)) + b"".join(map(text, indexes))
print("offer, length  ", len(offer))
print("offer, BLAKE3  ", blake3(offer).hexdigest())
