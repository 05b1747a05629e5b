"""The encrypted store: records, keys, engine, ledgers. Knows nothing of models or HTTP."""
