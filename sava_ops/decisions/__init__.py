"""From evidence to p-values, and from those to what is kept, dropped, relabelled or reviewed."""
