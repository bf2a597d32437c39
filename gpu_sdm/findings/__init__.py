"""What a paper reports after the main analysis: each from a finished result, a file each."""
