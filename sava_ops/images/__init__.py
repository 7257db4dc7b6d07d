"""Pixels: decoded, embedded, classified, and made dirty on purpose."""
