# The training image, for CPUs or for NVIDIA GPUs:
#   docker build --tag hubtune .
#   docker build --tag hubtune-gpu --build-arg ACCELERATOR=gpu .
# CUDA's libraries come as wheels with tensorflow[and-cuda], the driver from the machine, so that both start from the
# same small base: https://www.tensorflow.org/install/pip. The base is named by its tag; add its digest where a build is
# to be the same for ever.
FROM python:3.11-slim-bookworm

ARG ACCELERATOR=cpu
# Root, where a service gives its folders to root and sudo is not allowed: --build-arg RUN_AS=root.
ARG RUN_AS=trainer
# Where a machine puts NVIDIA's driver, and what of it is wanted, as in NVIDIA's own images; a CPU passes it over.
ENV PYTHONUNBUFFERED=1 \
    TF_ENABLE_ONEDNN_OPTS=1 \
    ONEDNN_PRIMITIVE_CACHE_CAPACITY=0 \
    PYTHONDONTWRITEBYTECODE=1 \
    LD_LIBRARY_PATH=/usr/local/nvidia/lib:/usr/local/nvidia/lib64 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN useradd --create-home --uid 1000 trainer
# The tuning service reads a trial's metric in this folder. Where it mounts one of root's in its place
# (https://github.com/GoogleCloudPlatform/cloudml-hypertune/issues/6), the user may take that one, and do nothing else as
# root: trainer/runtime/trial.py.
RUN apt-get update && \
    apt-get install --yes --no-install-recommends sudo && \
    rm -rf /var/lib/apt/lists/* && \
    echo 'trainer ALL=(root) NOPASSWD: /usr/bin/chown trainer /var/hypertune' > /etc/sudoers.d/hypertune && \
    chmod 0440 /etc/sudoers.d/hypertune && \
    visudo --check && \
    install --directory --owner=trainer /var/hypertune
WORKDIR /hubtune

# The packages change rarely: their layer is made before the code comes. Without --no-deps, pip
# fails when a package that another one requires with an extra has a new release. build.lock builds what has no wheel.
COPY requirements/build.lock requirements/common.lock requirements/${ACCELERATOR}.lock requirements/
RUN pip install --no-cache-dir --require-hashes --no-deps --requirement requirements/build.lock && \
    pip install --no-cache-dir --require-hashes --no-deps --no-build-isolation --requirement requirements/common.lock --requirement requirements/${ACCELERATOR}.lock && \
    pip check

COPY setup.py pyproject.toml README.md LICENSE ./
COPY configs configs
COPY scripts scripts
COPY trainer trainer
RUN pip install --no-cache-dir --no-deps --no-build-isolation --editable .

USER ${RUN_AS}
# Python is the first process, with no shell before it, so that SIGTERM reaches it.
ENTRYPOINT ["python", "-m", "trainer.task"]
