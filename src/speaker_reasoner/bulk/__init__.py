"""Thousands of hours: sources, shards, workers, targets. The recordings themselves are transcribed by `longform`."""
