"""Is the privacy claim true? The one-run audit and direct checks, on the product and on nine seeded mutants of it.

A mutant is a part handed in where the product hands in its own; the product has no switch for it.
"""
