"""The steps of the analysis: values in, values out; the heavy work is in `ops`."""
