"""What the clean set says: of its classes, of their shares in a training batch, and of what a batch is shifted by."""
