"""Benchmarks of the learning room: `python -m bench.learner`."""
