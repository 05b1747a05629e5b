"""Speed of the store beside plain sqlite3 in the same mode: `python -m bench.store`."""
