# vitsearch on the CPU, with the page: docker build -t vitsearch .
#   docker run --rm -v ~/Pictures:/photos vitsearch index /photos
#   docker run --rm -v ~/Pictures:/photos -p 127.0.0.1:8765:8765 vitsearch \
#     serve /photos --host 0.0.0.0 --token generate
FROM python:3.12-slim

# FFmpeg, LibRaw and libheif are in the wheels; nothing of the system is needed
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vitsearch vitsearch
COPY indexes indexes
ARG EXTRAS=web,faiss,heif,raw,jxl,video,places
# what is installed is this folder, which has its own floors of versions
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[$EXTRAS]" && useradd --create-home --uid 1000 vitsearch

USER 1000
WORKDIR /photos
EXPOSE 8765
ENTRYPOINT ["vitsearch"]
CMD ["--help"]
