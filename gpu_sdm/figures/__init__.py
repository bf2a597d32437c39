"""Figures for papers and reports: one file per figure, each function gives a matplotlib Figure."""
