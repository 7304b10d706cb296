#!/usr/bin/env bash
# Train the Keras sibling on a TPU VM with one host (v2-8, v3-8, v4-8, v5e-8); run it on that machine.
#
#   make setup EXTRAS=tpu CONSTRAINTS= VENV=.venv-keras           once; TensorFlow for TPUs exists up to 2.20
#   configs/launchers/tpu_vm.sh configs/cifar10_resnet18.yaml output_dir=/mnt/disk/runs
#
# A spot TPU loses its boot disk: output_dir belongs on a disk that stays. On the next machine the same line goes on.
# PYTHON names the interpreter, by default that of .venv-keras, else of .venv.
set -u

cd "$(dirname "$0")/../.." || exit
for python in ${PYTHON:-.venv-keras/bin/python .venv/bin/python python3}; do
    command -v "$python" >/dev/null && break
done
if [ -z "${TPU_NAME:-}" ] && ! compgen -G '/dev/accel*' >/dev/null && ! compgen -G '/dev/vfio/[0-9]*' >/dev/null; then
    echo "error: no TPU here (no /dev/accel*, no /dev/vfio/*); run this on a TPU VM, or name a TPU in TPU_NAME" >&2
    exit 2
fi
# bf16 is what a TPU multiplies in. exec: a signal to this script is a signal to the training.
exec "$python" keras_project/train.py hardware.accelerator=tpu hardware.devices=0 hardware.precision=bf16 \
    resume=auto "$@"
