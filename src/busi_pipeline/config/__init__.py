"""The configuration: how it is found, read, checked, and handed on as frozen objects."""
