"""The command line: wiring and output only."""
