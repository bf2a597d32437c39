"""What the regions of a finding do: co-activation, connectivity and terms of the literature."""
