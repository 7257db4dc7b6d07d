"""What a result's inputs are, whether it is due, who asks, and how it is computed."""
