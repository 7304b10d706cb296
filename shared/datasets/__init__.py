"""The data sets: which there are, where they come from, how they are read and split. Nothing here knows the config."""
