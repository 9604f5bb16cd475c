# syntax=docker/dockerfile:1
#
#   docker build --tag signpost .
#   docker run --rm --publish 127.0.0.1:8080:8080 signpost run --listen 0.0.0.0:8080
#
# OpenSSL is linked dynamically and comes with the base image: a fix of OpenSSL is then a rebuild on a
# newer base, which scanners see, and not a new release of Signpost. Of a vendored one nobody could tell
# from the image which version it is.
#
# Both stages are of the same Debian, so that the program finds the libraries it was built against.
# `tests/image/check` proves the second stage without a container engine, and reads it from here.

# The channel of rust-toolchain.toml, which is not copied: rustup would fetch its components.
ARG RUST_VERSION=1.95.0

FROM docker.io/library/rust:${RUST_VERSION}-slim-trixie AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
# Only what Cargo.lock names by hash is kept between builds. Cargo tells by its time whether a source is
# new, so a kept target directory could give the program of another branch.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    cargo build --release --locked --bin signpost \
 && install -D target/release/signpost /out/signpost \
 && install -d /out/data

# Holds what the program needs and no shell: glibc, libgcc, libssl, and the certificates of authorities.
FROM gcr.io/distroless/cc-debian13
ARG VERSION=0.0.0-unreleased
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="Signpost" \
      org.opencontainers.image.description="Publishes, rotates and verifies the service-account issuer of any Kubernetes cluster" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.base.name="gcr.io/distroless/cc-debian13" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
COPY --from=build /out/signpost /usr/bin/signpost
COPY --from=build --chown=65532:65532 /out/data /var/lib/signpost
# The base sets it too; nothing would be trusted without it.
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    SIGNPOST_DATA_DIR=/var/lib/signpost
# The only place that is written, so that the rest can be read-only.
VOLUME ["/var/lib/signpost"]
WORKDIR /var/lib/signpost
# A number: Kubernetes cannot tell from a name that it is not root.
USER 65532:65532
# The admin listener, 9090, is on loopback unless told otherwise. There is no HEALTHCHECK: Kubernetes
# probes /healthz and /readyz there, and ignores it.
EXPOSE 8080
ENTRYPOINT ["/usr/bin/signpost"]
CMD ["run"]
