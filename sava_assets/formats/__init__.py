"""What comes in: image sets as they lie on disk, tables of features, and sets that are made for a purpose."""
