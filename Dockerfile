FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# Without the feature `dev`: no private PostgreSQL, no Google simulator, no mailbox.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release --no-default-features && cp target/release/interviews /usr/local/bin/

FROM debian:bookworm-slim
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /usr/local/bin/interviews /usr/local/bin/
# A number, so that an orchestrator can see that it is not root.
USER 10001:10001
# Beyond loopback the server asks for PUBLIC_URL.
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000
# The image has no HTTP client, but bash.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$PORT && printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [[ $status == 200 ]]"]
CMD ["interviews", "serve"]
