"""The chain, in the order data flows: ingest, features, transport, curation; beside them their checks and pictures."""
