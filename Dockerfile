# The server of python -m cxrnet.serve, on the CPU. Build it at the top of the repository, and mount a run:
#   docker build -t cxrnet-serve .
#   docker run --read-only --tmpfs /tmp -p 127.0.0.1:8000:8000 -v "$PWD/outputs/runs/<run>:/run-of-model:ro" -e CXRNET_TOKEN=<token> cxrnet-serve
FROM python:3.12-slim

ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /app
# --build-arg TORCH_INDEX=<the index of PyTorch's builds for the CPU> spares some gigabytes of CUDA.
ARG TORCH_INDEX
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.11,<2.16" "torchvision>=0.26,<0.30"
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
COPY conf ./conf
RUN pip install ".[serve,dicom]" \
    && useradd --system --uid 10001 --no-create-home reader
USER reader
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Others reach the server here, so it wants a token: that of CXRNET_TOKEN, or one that it makes up and prints.
CMD ["python", "-m", "cxrnet.serve", "bundle=/run-of-model", "host=0.0.0.0", "port=8000"]
