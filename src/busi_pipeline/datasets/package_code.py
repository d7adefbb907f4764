"""MLflow runs this file to make a packaged model ("models from code"): no object is pickled."""

from mlflow.models import set_model

from busi_pipeline.datasets.package_service import PackageService

set_model(PackageService())
