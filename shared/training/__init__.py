"""What both siblings use while they train: learning rates, records, the best epoch, stopping on a signal."""
