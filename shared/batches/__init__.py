"""The images of an experiment: split, order, augmentation and batches, as pure functions of config and seed."""
