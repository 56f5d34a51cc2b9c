# One static binary and the CA certificates, nothing else: no shell, no libc, no package manager.
#
#   docker build --tag recoverd:0.1.0 .
#   docker run --publish 8080:8080 --volume recoverd:/var/lib/recoverd \
#     --volume "$PWD/recoverd.toml:/etc/recoverd.toml:ro" \
#     --volume "$PWD/jenkins.token:/run/secrets/jenkins:ro" --env RECOVERD_JENKINS__0__TOKENS_FILE=/run/secrets/jenkins \
#     --add-host host.docker.internal:host-gateway --env DD_AGENT_HOST=host.docker.internal \
#     recoverd:0.1.0 serve --config /etc/recoverd.toml
#
# In a container `webhooks.listen` must not be a loopback address, and `data_dir` must be on a volume. User 65532 must be
# able to read the token. An Agent on the host must take non-local traffic; one in a container of the same network is named
# instead, DD_AGENT_HOST=datadog-agent.

# Alpine's Rust links with musl, so the binary is static without further flags. The version is that of `rust-version`
# in Cargo.toml or later.
FROM rust:1.95.0-alpine3.23 AS build

# The image has gcc and the CA certificates; musl-dev adds the C headers that aws-lc-sys needs. aws-lc-sys brings
# bindings and assembly for musl on x86-64 and arm64: cmake, perl, Go and bindgen are not needed. Only the minor version
# is pinned, since Alpine removes a package's older revisions.
#
# With --build-arg TRAINED=yes recoverd is built by ci/release, guided by a profile: it takes a tenth less processor time, and
# two to three times as long to build. That takes LLVM's tools, and a runtime for profiles, which Rust has for musl on x86-64.
ARG TRAINED=no
RUN apk add --no-cache 'musl-dev~=1.2' \
    && if [ "$TRAINED" = yes ]; then rustup component add llvm-tools; fi

WORKDIR /src
COPY . .

# Crates and build products stay in BuildKit's caches, so that a change of src/ compiles only recoverd. A cache mount is
# not part of the image: what is kept is copied out in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    if [ "$TRAINED" = yes ]; then \
        ci/release && built=target/release-trained/recoverd; \
    else \
        cargo build --release --locked --bin recoverd && built=target/release/recoverd; \
    fi \
    && install -D -m 0755 "$built" /rootfs/recoverd \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /rootfs/etc/ssl/certs/ca-certificates.crt \
    && install -d -m 0700 -o 65532 -g 65532 /rootfs/var/lib/recoverd \
    && install -d -m 1777 /rootfs/tmp

FROM scratch

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="recoverd" \
      org.opencontainers.image.description="Makes Jenkins alerts in Datadog recover by themselves" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# Keeps owners: the data directory belongs to the user below, and a fresh named volume takes that over. /tmp is where `demo`
# has its own.
COPY --from=build /rootfs /

# A number, since scratch has no /etc/passwd, and since Kubernetes' `runAsNonRoot` can only check a number.
USER 65532:65532

# A relative `data_dir`, such as the default, falls in here. Set no variables in this image: they would silently outrank
# the operator's file. No VOLUME either: it would hide a forgotten mount behind an anonymous one.
WORKDIR /var/lib/recoverd

# Webhooks, admin (health, metrics, API).
EXPOSE 8080 8081 8082

# SIGTERM, the default, drains; give it as long as in deploy/k8s before a kill.
ENTRYPOINT ["/recoverd"]
CMD ["serve"]
