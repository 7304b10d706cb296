"""What both siblings need while they train: learning rates, records, the best epoch, stopping."""
