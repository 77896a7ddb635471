"""Transparency logs: a Merkle tree, the notes that sign it, and the proofs that anybody can check.

Pure: bytes in, bytes out, with no clock, no file and no network, over the standard library, `msgspec` and
`cryptography`. It knows nothing of the rest of this repository. From the bottom to the top:

====================  ==================================================================================
`strict`              the encodings that have exactly one spelling, and `Rejected`, which everything raises
`tree`                RFC 6962: hashes, roots, inclusion and consistency proofs
`tiles`               C2SP tlog-tiles: where the hashes and entries of a log lie, and how they are packed
`checkpoints`         C2SP tlog-checkpoint: a tree's origin, size and root as text
`cosignatures`        C2SP tlog-cosignature: what exactly a timestamped signature signs
`keys`                signing keys and verifier keys: Ed25519, cosignature/v1, ML-DSA-44
`notes`               C2SP signed-note: text with signatures, parsed strictly
`policies`            C2SP tlog-policy: which logs, which witnesses, and how many of them
`proofs`              C2SP tlog-proof: a receipt that an entry is in a log
`witnessing`          C2SP tlog-witness: what a witness does with a checkpoint, and what its client sends
====================  ==================================================================================

docs/transparency.md explains the formats, with examples.
"""
