"""The rooms of the house, one folder a stage; `pipeline_registry.py` puts them together."""
