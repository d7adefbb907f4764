"""The catalog's own dataset types: files, arrays in the cache, records and models of runs."""
