"""Fingerprints of values, data and networks, equal in every process."""
