"""Which entries survive: ranking, distributions, patterns."""
