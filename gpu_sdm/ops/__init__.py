"""The heavy operations: one file each, with a plain NumPy twin and a compiled version."""
