"""Sophon: collaborative research on a tamper-evident log."""
