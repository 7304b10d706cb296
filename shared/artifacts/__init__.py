"""Exported models: what stands beside them, how they are asked, checked and compared."""
