"""What the machine offers: accelerators, interpreters, files, the terminal. Knows nothing of the experiment."""
