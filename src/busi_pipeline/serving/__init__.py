"""The packaged model at a hospital: routes and views over `models.packaged`, no arithmetic."""
