"""The chain, in the order data flows: ingest, features, transport, curation, publication; beside them their checks and
pictures."""
