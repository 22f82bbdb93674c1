# AffinityNet on a CPU.
#
#     docker build -t affinitynet .
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" --shm-size 1g affinitynet \
#         run own_images --data photos --out runs/photos
FROM python:3.11-slim

WORKDIR /opt/affinitynet
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# The tested versions. PyPI's torch brings CUDA's libraries, some 5 GB that a CPU does not use; its
# CPU-only wheels work too, if torch and torchvision come from there together.
RUN pip install --no-cache-dir --constraint constraints.txt ".[view]"

# Kernels are compiled at their first use, and kept where any user may write.
ENV NUMBA_CACHE_DIR=/tmp/numba HOME=/tmp PYTHONUNBUFFERED=1
WORKDIR /work
ENTRYPOINT ["affinitynet"]
CMD ["--help"]
