"""Verifiers that were not written with this software, and logs that they accept or have to reject."""
