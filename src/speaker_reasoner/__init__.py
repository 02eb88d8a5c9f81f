"""Speaker-Reasoner: who said what, and when."""
