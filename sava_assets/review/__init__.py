"""A person sees, decides and is remembered: decisions that outrank the algorithm, and the page they are made on."""
