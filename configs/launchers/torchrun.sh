#!/usr/bin/env bash
# Train the Lightning sibling with torchrun, one process per device.
#
#   configs/launchers/torchrun.sh configs/cifar10_resnet18.yaml               all GPUs of this machine
#   DEVICES=2 configs/launchers/torchrun.sh hardware.accelerator=cpu          two processes on the CPU
#   NODES=2 NODE=0 HEAD=host-a configs/launchers/torchrun.sh CONFIG           on host-a, and on the other machine
#   NODES=2 NODE=1 HEAD=host-a configs/launchers/torchrun.sh CONFIG           the same with its own number
#
# DEVICES per machine, by default the GPUs that nvidia-smi lists, else 1    PORT of host-a, by default 29500
# PYTHON interpreter, by default that of .venv-lightning, else of .venv
#
# Ctrl-C or SIGTERM saves first; the same line again goes on from there, since it says resume=auto.
set -u

cd "$(dirname "$0")/../.." || exit
for python in ${PYTHON:-.venv-lightning/bin/python .venv/bin/python python3}; do
    command -v "$python" >/dev/null && break
done
nodes=${NODES:-1}
devices=${DEVICES:-$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU')}
[ "$devices" = 0 ] && devices=1
if [ "$nodes" = 1 ]; then
    meeting=(--standalone)
elif [ -z "${NODE:-}" ] || [ -z "${HEAD:-}" ]; then
    echo "error: NODES=$nodes needs NODE, this machine's number from 0, and HEAD, the host name of machine 0" >&2
    exit 2
else
    meeting=(--nnodes="$nodes" --node-rank="$NODE" --master-addr="$HEAD" --master-port="${PORT:-29500}")
fi

# torchrun passes a signal on and then kills what is not gone after 30 s, which may be short for a checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}
# A process group of its own: the terminal's Ctrl-C would reach torchrun a second time and cut its waiting short.
set -m
"$python" -m torch.distributed.run "${meeting[@]}" --nproc-per-node="$devices" --max-restarts=0 \
    lightning_project/train.py hardware.num_nodes="$nodes" hardware.devices="$devices" resume=auto "$@" &
torchrun=$!

stopped=
stop() {  # signal, exit status
    stopped=$2
    signalled=yes
    kill -s "$1" "$torchrun" 2>/dev/null
}
trap 'stop TERM 143' TERM
trap 'stop INT 130' INT

while :; do  # a trap ends `wait` before its time
    signalled=no
    wait "$torchrun"
    status=$?
    [ "$signalled" = yes ] || break
done
# torchrun itself ends with 1 after a signal, whatever the training said.
[ "$status" != 0 ] && [ -n "$stopped" ] && status=$stopped
exit "$status"
