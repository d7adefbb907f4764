"""Where runs are kept: the store of the project, and the way to an MLflow server.

Nothing here knows what a run is about.
"""
