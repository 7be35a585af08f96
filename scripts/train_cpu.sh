#!/usr/bin/env bash
# Train a recipe on the CPU.
#
#   MAX_ITER=20 OUTPUT_DIR=output/check scripts/train_cpu.sh SOLVER.WEIGHT_DECAY 0.1
#
# Paths and data sets are relative to the current folder. Environment; what is not set stays as the recipe says:
#   CONFIG_FILE     recipe (configs/quickstart/panoptic.yaml)
#   NUM_GPUS        processes that share the CPU (one, without distributed training)
#   OUTPUT_DIR      where everything is written
#   WEIGHTS         what training starts from
#   BATCH_SIZE      images per update, over all processes
#   BASE_LR         learning rate
#   MAX_ITER        updates
#   RESUME          any value: go on from the last checkpoint of OUTPUT_DIR
#   IMAGE_SIZE      edge in pixels: training on squares of it, evaluation with the shorter side of it
#   TRAIN_DATASETS, TEST_DATASETS  names, separated by blanks
#   PYTHON          interpreter (python)
# Further arguments are KEY VALUE pairs; they have the last word.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/_train_net.sh"
run_train_net "${NUM_GPUS:-0}" -- MODEL.DEVICE cpu "$@"
