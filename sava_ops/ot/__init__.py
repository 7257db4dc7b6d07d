"""Entropic optimal transport between labelled points. It knows nothing of data sets, settings or what costs are for."""
