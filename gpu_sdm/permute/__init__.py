"""The permutation engine."""
