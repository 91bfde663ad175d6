# What most buildout projects have: the whole buildout runs inside the container build.
ARG BASE
FROM ${BASE}
# a package index of one's own; the benchmark has one on loopback
ARG PIP_INDEX_URL
ARG PARTS
ARG PORT=8080
WORKDIR /var/application
COPY . .
RUN python3 bootstrap.py \
 && bin/buildout ${PIP_INDEX_URL:+"buildout:index=${PIP_INDEX_URL}"} "buildout:parts=${PARTS}" "custom:webapp_port=${PORT}"
CMD ["bin/circusd", "parts/conf/circus.ini"]
