"""What a round costs the server: memory, replies a second, bytes, many devices, hostile ones."""
