# Answers over HTTP, or on the command line: what computes and answers, neither TensorFlow nor Kedro.
# It holds no data and no weights. From the folder of the repository:
#   docker build -t busi_pipeline .
#   docker run --read-only --tmpfs /tmp --stop-timeout 90 -p 8000:8000 -e BUSI_SERVE_API_KEY=... \
#       -v ./data/06_models:/models:ro -v ./readings:/readings busi_pipeline
#   docker run --read-only --tmpfs /tmp -v ./data/06_models:/models:ro -v ./scans:/scans:ro \
#       busi_pipeline predict --models /models /scans/scan.png
# The user `busi` (10001) must be able to write in ./readings: what readers say is kept there.
FROM docker.io/library/python:3.11-slim

ENV MLFLOW_DISABLE_TELEMETRY=true \
    KEDRO_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

RUN useradd --system --uid 10001 --no-create-home busi
# Layers that change seldom come first. pip takes the very files whose hashes the lock has.
COPY deploy/requirements.lock /build/
RUN pip install --no-deps -r /build/requirements.lock
COPY pyproject.toml README.md LICENSE /build/
COPY src /build/src
RUN pip install --no-deps --no-build-isolation /build && rm -r /build

USER busi
EXPOSE 8000
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=3)"]
ENTRYPOINT ["python", "-m", "busi_pipeline"]
CMD ["serve", "--models", "/models", "--host", "0.0.0.0", "--readings", "/readings/readings.jsonl"]
