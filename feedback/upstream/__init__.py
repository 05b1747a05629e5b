"""The way out to a bigger model: only under the owner's written policy and consent, redacted, recorded, bounded."""
