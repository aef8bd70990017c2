FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/ledgerstream
ENV PATH=/opt/ledgerstream/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# What others wrote changes seldom: a layer of its own.
COPY requirements-runtime.lock .
RUN pip install --require-hashes -r requirements-runtime.lock
COPY pyproject.toml README.md ./
COPY consumers consumers
COPY domain domain
COPY schemas schemas
COPY infra infra
RUN pip install --no-deps --no-build-isolation . \
    && pip uninstall --yes hatchling pathspec pluggy tomlkit trove-classifiers

FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /nonexistent --shell /usr/sbin/nologin ledgerstream
COPY --from=build /opt/ledgerstream /opt/ledgerstream
ENV PATH=/opt/ledgerstream/bin:$PATH PYTHONUNBUFFERED=1
USER ledgerstream
ENTRYPOINT ["ledgerstream"]
CMD ["run"]
