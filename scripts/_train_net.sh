# Sourced by the four scripts: turns environment variables into a command line of train_net.py and runs it.
# Call: run_train_net NUM_GPUS [FLAG ...] -- [KEY VALUE ...]

# Environment variable -> key, in the order they are passed.
SAME_VALUE=(
  WEIGHTS=MODEL.WEIGHTS
  BATCH_SIZE=SOLVER.IMS_PER_BATCH
  BASE_LR=SOLVER.BASE_LR
  MAX_ITER=SOLVER.MAX_ITER
  OUTPUT_DIR=OUTPUT_DIR
)

# "a b" -> [a, b]
as_list() {
  local words
  read -ra words <<<"$1"
  local joined
  printf -v joined ', %s' "${words[@]}"
  echo "[${joined:2}]"
}

# Edge N: crops and padded images of N x N; the shorter side of images from N/2 to 2N in training, N in evaluation, the
# longer one up to 4N, as in the published recipes of ADE20K. INPUT.IMAGE_SIZE is what recipes of COCO read instead.
image_size_options() {
  local edge=$1 tenths sizes=""
  for tenths in {5..20}; do
    sizes+=" $((edge * tenths / 10))"
  done
  OPTIONS+=(INPUT.IMAGE_SIZE "$edge" INPUT.CROP.SIZE "[$edge, $edge]" INPUT.SIZE_DIVISIBILITY "$edge"
    INPUT.MIN_SIZE_TRAIN "$(as_list "$sizes")" INPUT.MAX_SIZE_TRAIN "$((4 * edge))"
    INPUT.MIN_SIZE_TEST "$edge" INPUT.MAX_SIZE_TEST "$((4 * edge))")
}

run_train_net() {
  local num_gpus=$1 pair name root
  shift
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  local -a command=("${PYTHON:-python}" "$root/train_net.py" --num-gpus "$num_gpus"
    --config-file "${CONFIG_FILE:-$root/configs/quickstart/panoptic.yaml}")
  [[ -z ${RESUME:-} ]] || command+=(--resume)
  while [[ $1 != -- ]]; do
    command+=("$1")
    shift
  done
  shift
  OPTIONS=()
  for pair in "${SAME_VALUE[@]}"; do
    name=${pair%%=*}
    [[ -z ${!name:-} ]] || OPTIONS+=("${pair#*=}" "${!name}")
  done
  [[ -z ${TRAIN_DATASETS:-} ]] || OPTIONS+=(DATASETS.TRAIN "$(as_list "$TRAIN_DATASETS")")
  [[ -z ${TEST_DATASETS:-} ]] || OPTIONS+=(DATASETS.TEST "$(as_list "$TEST_DATASETS")")
  [[ -z ${IMAGE_SIZE:-} ]] || image_size_options "$IMAGE_SIZE"
  exec "${command[@]}" ${OPTIONS[@]+"${OPTIONS[@]}"} "$@"  # an empty array is unset to the bash of macOS
}
