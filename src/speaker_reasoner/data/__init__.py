"""Data: sentences, voices, simulated meetings, observations and training dialogues."""
