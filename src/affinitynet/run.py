"""Temporary home of names that live in run_folder."""

from affinitynet.run_folder import atomic_write, fingerprint, read_json, write_json

__all__ = ["atomic_write", "fingerprint", "read_json", "write_json"]
