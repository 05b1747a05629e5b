"""The gateway against bare llama-cpp-python."""
