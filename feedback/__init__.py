"""Serving and feedback: the llama.cpp engine, the recorder, corrections and examples. Trains nothing."""
