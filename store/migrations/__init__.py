"""Schema migrations, applied in order and never edited once released."""
