"""The commands after `permute`: parse, call `findings`, render; a file each."""
