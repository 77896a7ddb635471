"""The `sophon` command: each module that is imported here hangs its commands on it."""

from app.cli import (
    approvals,
    checkpoint,
    differences,
    doctor,
    drill,
    export,
    installation,
    log,
    moments,
    password,
    prove,
    prune,
    rebuilding,
    recover,
    retention,
    rotate,
    signer,
    subject,
    verify,
    volumes,
    webhook,
    witness,
)
from app.cli.groups import main

__all__ = [
    "approvals",
    "checkpoint",
    "differences",
    "doctor",
    "drill",
    "export",
    "installation",
    "log",
    "main",
    "moments",
    "password",
    "prove",
    "prune",
    "rebuilding",
    "recover",
    "retention",
    "rotate",
    "signer",
    "subject",
    "verify",
    "volumes",
    "webhook",
    "witness",
]

if __name__ == "__main__":
    main()
