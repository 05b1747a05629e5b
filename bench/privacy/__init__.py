"""What privacy costs: usefulness against epsilon and number of devices, and time and memory of a private step."""
