# Training, evaluation, reports, and a device for the named data sets: everything, TensorFlow too.
#   docker build -f dockerfiles/train.Dockerfile -t branchy-train .
#   docker run --rm -v "$PWD/saved_models:/train/saved_models" --user "$(id -u)" branchy-train train digits --out saved_models/digits
# BASE needs python3 (3.11 to 3.13) with venv and pip; all wheels are there for amd64 and arm64.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY branchy branchy
RUN ["python3", "-m", "venv", "--without-pip", "/opt/branchy"]
RUN --mount=type=secret,id=pip,target=/etc/pip.conf ["python3", "-m", "pip", "--python", "/opt/branchy/bin/python3", "install", "--no-cache-dir", "-c", "constraints.txt", ".[images,train]"]

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="branchy train" \
      org.opencontainers.image.description="Training, evaluation and reports of early-exit cascades" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/branchy /opt/branchy
# Matplotlib and Keras keep settings in a home that a user without a name does not have: /tmp, or a tmpfs there.
ENV PATH=/opt/branchy/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /train
USER 10001:10001
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["branchy"]
CMD ["--help"]
