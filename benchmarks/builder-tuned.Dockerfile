# The benchmark's project as quickly as BuildKit can build it after a change of its source:
# wheels in a layer of their own, and nothing is run after the source has been copied, so
# that its byte-code is missing.
ARG BASE
ARG UV
FROM ${UV} AS uv

FROM ${BASE} AS environment
COPY --from=uv /uv /usr/local/bin/
# a package index of one's own; the benchmark has one on loopback
ARG UV_DEFAULT_INDEX
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
COPY requirements.txt ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv venv \
 && uv pip install --python venv --requirements requirements.txt

FROM ${BASE}
COPY --from=environment /app/venv /app/venv
ENV PATH=/app/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV LANG=C.UTF-8 PYTHONPATH=/app/src PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /app
EXPOSE 8080
CMD ["gunicorn", "--bind", "0.0.0.0:8080", "depot.web"]
COPY src /app/src
