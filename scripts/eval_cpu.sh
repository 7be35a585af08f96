#!/usr/bin/env bash
# Evaluate a checkpoint on the CPU.
#
#   WEIGHTS=output/check/model_final.pth OUTPUT_DIR=output/evaluated scripts/eval_cpu.sh
#
# Paths and data sets are relative to the current folder. Environment; what is not set stays as the recipe says:
#   CONFIG_FILE     recipe (configs/quickstart/panoptic.yaml)
#   NUM_GPUS        processes that share the CPU (one, without distributed training)
#   OUTPUT_DIR      where everything is written
#   WEIGHTS         checkpoint to evaluate (output/quickstart_panoptic/model_final.pth)
#   RESUME          any value: the last checkpoint of OUTPUT_DIR, in place of WEIGHTS
#   IMAGE_SIZE      edge in pixels: training on squares of it, evaluation with the shorter side of it
#   TRAIN_DATASETS, TEST_DATASETS  names, separated by blanks
#   PYTHON          interpreter (python)
# Further arguments are KEY VALUE pairs; they have the last word.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_train_net.sh"
WEIGHTS=${WEIGHTS-output/quickstart_panoptic/model_final.pth}
run_train_net "${NUM_GPUS:-0}" --eval-only -- MODEL.DEVICE cpu "$@"
