"""The weights that a training starts from, and the file in which they travel between the siblings."""
