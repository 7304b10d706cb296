"""The images of an experiment: where they come from, how they are read, and their split, order, augmentation and
batches as functions of config and seed alone."""
