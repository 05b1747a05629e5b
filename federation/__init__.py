"""Sharing: private updates, releases, the Flower client and server. Never sees text."""
