"""Run folders: written, read again, resumed."""
