"""The stages, a folder each; `pipeline_registry.py` puts them together."""
