"""Torture for the store: kills, power cuts, I/O errors, flips, rollbacks, and a search for readable text.

Run with `python -m tools.torture`; each kind of torture is a module with a `run` function.
"""
