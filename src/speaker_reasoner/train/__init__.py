"""Training: the stages, their data, the tiny model from scratch."""
