"""Flagged images to other tools, and what people decided there back into `decisions/`: one tool per file."""
