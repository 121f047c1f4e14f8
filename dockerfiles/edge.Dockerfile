# The edge: light runtime, LiteRT, one bundle; decodes JPEG and PNG. No TensorFlow.
#   docker build -f dockerfiles/edge.Dockerfile --build-arg BUNDLE=saved_models/digits -t branchy-edge .
# BASE needs python3 (3.11 to 3.13) with venv and pip; all wheels are there for amd64 and arm64.
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY branchy branchy
RUN ["python3", "-m", "venv", "--without-pip", "/opt/branchy"]
RUN --mount=type=secret,id=pip,target=/etc/pip.conf ["python3", "-m", "pip", "--python", "/opt/branchy/bin/python3", "install", "--no-cache-dir", "-c", "constraints.txt", ".[images]"]
ARG BUNDLE=saved_models/digits
COPY --chmod=0755 ${BUNDLE} /bundle
# A bundle that is incomplete or was changed ends the build here.
RUN ["/opt/branchy/bin/branchy", "inspect", "/bundle"]

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="branchy edge" \
      org.opencontainers.image.description="The first tier of a cascade: LiteRT, no TensorFlow" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/branchy /opt/branchy
COPY --from=build /bundle /bundle
ENV PATH=/opt/branchy/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    BRANCHY_BUNDLE=/bundle \
    BRANCHY_TIER=edge \
    BRANCHY_HEALTH_PORT=9400
WORKDIR /bundle
USER 10001:10001
EXPOSE 9400
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["branchy", "health"]
ENTRYPOINT ["branchy", "serve"]
