# The same application without buildout, as somebody writes it who knows BuildKit and uv:
# wheels in a layer of their own, stages that run side by side, downloads in a cache mount,
# byte-code in the image, not root, and the source copied last.
ARG BASE
ARG UV
FROM ${UV} AS uv

FROM ${BASE} AS environments
COPY --from=uv /uv /usr/local/bin/
# a package index of one's own; the benchmark has one on loopback
ARG UV_DEFAULT_INDEX
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON=/usr/bin/python3 UV_PYTHON_DOWNLOADS=never
WORKDIR /app
COPY deploy/versions.txt ./
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv venv \
 && uv pip install --python venv --constraint versions.txt Django gunicorn circus
COPY examples/report report-source
RUN --mount=type=cache,target=/root/.cache/uv \
    uv venv report \
 && uv pip install --python report --constraint versions.txt \
    --requirements report-source/requirements.txt ./report-source

FROM environments AS static
COPY examples/shop/src src
ENV PYTHONPATH=/app/src PYTHONDONTWRITEBYTECODE=1
ENV DJANGO_SETTINGS_MODULE=shop.settings.production SHOP_STATIC=/app/static
RUN venv/bin/django-admin collectstatic --noinput --verbosity 0

FROM ${BASE} AS source
COPY examples/shop/src /app/src
RUN python3 -m compileall -q /app/src

FROM ${BASE}
RUN mkdir /run/shop && chown 10001:10001 /run/shop
COPY --from=environments /app/venv /app/venv
COPY --from=environments /app/report /app/report
COPY deploy/circus.ini deploy/nginx.conf /app/
COPY --from=static /app/static /app/static
COPY --from=source /app/src /app/src
ENV PATH=/app/venv/bin:/app/report/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ENV LANG=C.UTF-8 PYTHONPATH=/app/src PYTHONUNBUFFERED=1
USER 10001:10001
WORKDIR /app
CMD ["circusd", "/app/circus.ini"]
