#!/usr/bin/env bash
# Train the Keras sibling on several machines, one process on each.
#
#   WORKERS=host-a:20000,host-b:20000 INDEX=0 configs/launchers/multi_worker.sh CONFIG    on host-a
#   WORKERS=host-a:20000,host-b:20000 INDEX=1 configs/launchers/multi_worker.sh CONFIG    on host-b
#
# WORKERS is the same everywhere; each address must be reachable from the others, and its port free. output_dir must
# be on storage that all of them share. PYTHON names the interpreter, by default that of .venv-keras, else of .venv.
set -u

cd "$(dirname "$0")/../.." || exit
for python in ${PYTHON:-.venv-keras/bin/python .venv/bin/python python3}; do
    command -v "$python" >/dev/null && break
done
index=${INDEX:-${SLURM_PROCID:-}}  # slurm_keras.sbatch lets SLURM count
refuse() {
    echo "error: WORKERS='${WORKERS:-}' and INDEX='$index'; $1" >&2
    exit 2
}
[ -n "${WORKERS:-}" ] || refuse "expected WORKERS=host-a:20000,host-b:20000, all machines in the same order"
IFS=, read -ra workers <<<"$WORKERS"
for worker in "${workers[@]}"; do
    [[ $worker =~ ^[A-Za-z0-9._-]+:[0-9]+$ ]] || refuse "'$worker' is no host:port"
done
if ! [[ $index =~ ^[0-9]+$ ]] || [ "$index" -ge "${#workers[@]}" ]; then
    refuse "INDEX is this machine's place in WORKERS, counted from 0"
fi

if [ "${#workers[@]}" -gt 1 ]; then  # a single worker would wait for a cluster that is only itself
    printf -v list '"%s",' "${workers[@]}"
    export TF_CONFIG="{\"cluster\": {\"worker\": [${list%,}]}, \"task\": {\"type\": \"worker\", \"index\": $index}}"
fi
# exec: a signal to this script is a signal to the training.
exec "$python" keras_project/train.py hardware.num_nodes="${#workers[@]}" hardware.devices=0 resume=auto "$@"
