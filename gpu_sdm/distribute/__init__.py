"""Work that one process or its memory cannot hold: files of slabs, workers, clusters."""
