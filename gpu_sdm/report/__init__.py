"""report.html: everything a result says, in one file that needs nothing else."""
