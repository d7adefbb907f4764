"""The catalog's own dataset types: the only code of the project that touches files or MLflow."""
