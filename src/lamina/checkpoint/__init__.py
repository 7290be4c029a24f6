"""Stored weights: reading, writing, and where they come from."""
