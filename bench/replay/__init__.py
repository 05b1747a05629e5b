"""Real logs for `corrigible replay`, made from public sets."""
