"""Trains the small embedded base model and writes it as one GGUF file."""
