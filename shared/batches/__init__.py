"""The images of an experiment: their split, order, augmentation and batches, as functions of config and seed alone."""
