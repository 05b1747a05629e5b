"""Learning on the device: LoRA training, the gate, private training, the background loop. Never talks to a network."""
