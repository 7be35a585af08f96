"""Every key of a recipe: its published default and what it means.

Names and values are detectron2's and those of the published Mask2Former, video, DiNAT and MaskFormer code; keys of
our own are marked "ours". Sizes are pixels, times are optimiser updates ("iterations") unless said otherwise.
Sequences are lists here, whatever spelling a recipe uses. A default of None accepts any value.
detectron2 keys without meaning here are in `compat.py`.
"""

from __future__ import annotations

_INPUT = {
    "FORMAT": "BGR",  # channel order the model is fed: RGB or BGR
    "DATASET_MAPPER_NAME": "mask_former_semantic",  # augmentations and targets, by name; VideoMaskFormer: ytvis
    "MIN_SIZE_TRAIN": [800],  # shortest edge: values to choose from, or two ends of a range
    "MIN_SIZE_TRAIN_SAMPLING": "choice",  # choice | range | choice_by_clip | range_by_clip; always once per clip
    "MAX_SIZE_TRAIN": 1333,  # longest edge after resizing
    "MIN_SIZE_TEST": 800,  # shortest edge; 0 keeps the image's own size
    "MAX_SIZE_TEST": 1333,  # longest edge after resizing
    "RANDOM_FLIP": "horizontal",  # none | horizontal | vertical | flip_by_clip; clips are always flipped whole
    "AUGMENTATIONS": [],  # of clips, any of: brightness, contrast, saturation, rotation
    "COLOR_AUG_SSD": False,  # SSD's photometric distortion
    "CROP": {
        "ENABLED": False,
        "TYPE": "relative_range",  # absolute | absolute_range | relative | relative_range
        "SIZE": [0.9, 0.9],  # height, width: pixels for absolute types, shares of the image for relative ones
        "SINGLE_CATEGORY_MAX_AREA": 1.0,  # largest share one class may take of a crop; 1.0 accepts every crop
    },
    "SIZE_DIVISIBILITY": -1,  # edge the training sample is padded TO (not a divisor); below 1: no padding
    # large-scale jittering of the COCO recipes
    "IMAGE_SIZE": 1024,  # edge of the square crop
    "MIN_SCALE": 0.1,  # range of the scale factor
    "MAX_SCALE": 2.0,
    # clips of video recipes
    "SAMPLING_FRAME_NUM": 2,  # frames per training clip
    "SAMPLING_FRAME_RANGE": 20,  # frames are drawn at most this far from the reference frame
    "SAMPLING_FRAME_SHUFFLE": False,  # shuffle the order of a clip's frames
}

_DATASETS = {
    "TRAIN": [],  # names in the dataset catalog, read as one set
    "TEST": [],  # names in the dataset catalog, evaluated one by one
    # ours: name -> {TYPE: sem_seg_folder | coco_instances | coco_panoptic | ytvis, ROOT, ...}; registers
    # <name>_<split>: sem_seg_folder [CLASSES, IGNORE_LABEL]: ROOT/<split>/images and masks; others: SPLITS: {<split>:
    # {IMAGES, ANNOTATIONS, for coco_panoptic PANOPTIC [SEM_SEG, INSTANCES]}}, paths below ROOT
    "CUSTOM": {},
}

_DATALOADER = {
    "NUM_WORKERS": 4,  # loading processes per rank; 0 loads in the main process
    "ASPECT_RATIO_GROUPING": True,  # wide images share batches with wide ones; the published mappers pad instead
    "SAMPLER_TRAIN": "TrainingSampler",  # TrainingSampler | RepeatFactorTrainingSampler
    "REPEAT_THRESHOLD": 0.0,  # frequency below which a class's images are repeated
    "REPEAT_SQRT": True,  # repeat by the square root of threshold / frequency
    "FILTER_EMPTY_ANNOTATIONS": True,  # leave out training images without any annotation
}

_RESNETS = {
    "DEPTH": 50,  # 50, 101 or 152
    "OUT_FEATURES": ["res4"],  # maps handed on
    "NORM": "FrozenBN",  # FrozenBN | BN | SyncBN
    "NUM_GROUPS": 1,  # groups of the 3x3 convolutions (ResNeXt: 32)
    "WIDTH_PER_GROUP": 64,  # channels per group of the first stage's bottleneck
    "STRIDE_IN_1X1": True,  # True: stride in the first 1x1 convolution (MSRA weights); False: in the 3x3 (torchvision)
    "RES4_DILATION": 1,  # dilation of stage 4 (deeplab builder)
    "RES5_DILATION": 1,  # dilation of stage 5, in place of its stride
    "RES5_MULTI_GRID": [1, 2, 4],  # factors on stage 5's dilation, block by block (deeplab builder)
    "RES2_OUT_CHANNELS": 256,  # channels out of the first stage; doubles with every stage
    "STEM_TYPE": "deeplab",  # basic: one 7x7 | deeplab: three 3x3 (deeplab builder)
    "STEM_OUT_CHANNELS": 64,
    "DEFORM_ON_PER_STAGE": [False, False, False, False],  # deformable 3x3 convolutions, per stage
}

_SWIN = {
    "PRETRAIN_IMG_SIZE": 224,  # image edge of the pretraining, for absolute position embeddings
    "PATCH_SIZE": 4,
    "EMBED_DIM": 96,  # channels of the first stage; doubles with every stage
    "DEPTHS": [2, 2, 6, 2],  # blocks per stage
    "NUM_HEADS": [3, 6, 12, 24],  # attention heads per stage
    "WINDOW_SIZE": 7,  # edge of an attention window, in tokens
    "MLP_RATIO": 4.0,  # hidden over embedding channels
    "QKV_BIAS": True,
    "QK_SCALE": None,  # None: head_dim ** -0.5
    "DROP_RATE": 0.0,  # dropout probability
    "ATTN_DROP_RATE": 0.0,  # dropout probability of attention weights
    "DROP_PATH_RATE": 0.3,  # stochastic depth, growing linearly to this
    "APE": False,  # absolute position embedding
    "PATCH_NORM": True,  # LayerNorm after the patch embedding
    "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "USE_CHECKPOINT": False,  # recompute activations in the backward pass
}

_DINAT = {
    "DEPTHS": [3, 4, 18, 5],  # blocks per stage
    "EMBED_DIM": 192,  # channels of the first stage; doubles with every stage
    "NUM_HEADS": [6, 12, 24, 48],  # attention heads per stage
    "KERNEL_SIZE": 7,  # edge of the neighbourhood, in tokens
    "DILATIONS": None,  # per stage, per block; None: 1 everywhere
    "MLP_RATIO": 2.0,  # hidden over embedding channels
    "QKV_BIAS": True,
    "QK_SCALE": None,  # None: head_dim ** -0.5
    "DROP_RATE": 0.0,  # dropout probability
    "ATTN_DROP_RATE": 0.0,  # dropout probability of attention weights
    "DROP_PATH_RATE": 0.3,  # stochastic depth, growing linearly to this
    "LAYER_SCALE": 0.0,  # ours: initial factor of residual branches; 0: none. Weights of the small and base sizes: 1e-5
    "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
}

_TIMM = {  # ours: any timm model with feature maps, or a plain vision transformer, BACKBONE.NAME "timm/<model>"
    "OUT_FEATURES": ["res2", "res3", "res4", "res5"],  # the maps at strides 4, 8, 16, 32
    "WEIGHTS": "",  # local file of backbone weights | pretrained: timm's, cached or downloaded | "": none
    "NORM": "",  # "": as timm builds it | FrozenBN
    "DROP_PATH_RATE": 0.0,  # stochastic depth, growing to this; 0: as timm builds it
    "IMAGE_SIZE": 0,  # edge of the images that models of one fixed size are built for, in pixels; 0: timm's
}

_SEM_SEG_HEAD = {
    "NAME": "SemSegFPNHead",  # registry SEM_SEG_HEADS
    "NUM_CLASSES": 54,  # without "no object"
    "IGNORE_VALUE": 255,  # value of pixels without label
    "LOSS_WEIGHT": 1.0,  # of the per-pixel loss
    "LOSS_TYPE": "hard_pixel_mining",  # of DeepLab heads: cross_entropy | hard_pixel_mining
    # pixel decoder
    "PIXEL_DECODER_NAME": "BasePixelDecoder",  # registry PIXEL_DECODER
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],  # backbone maps used
    "CONVS_DIM": 128,  # channels of the decoder's maps
    "MASK_DIM": 256,  # channels of the mask features
    "NORM": "GN",  # "" | GN (32 groups) and others
    "COMMON_STRIDE": 4,  # stride of the mask features
    "TRANSFORMER_ENC_LAYERS": 0,  # encoder layers on the coarse maps
    "TRANSFORMER_DIM_FEEDFORWARD": 1024,  # ours: hidden width of those layers, fixed in the published MSDeformAttn code
    "DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res3", "res4", "res5"],  # maps the deformable encoder sees
    "DEFORMABLE_TRANSFORMER_ENCODER_N_POINTS": 4,  # sampling points per head and level
    "DEFORMABLE_TRANSFORMER_ENCODER_N_HEADS": 8,
    # DeepLab v3+ heads
    "PROJECT_FEATURES": ["res2"],  # maps joined in the decoder
    "PROJECT_CHANNELS": [48],  # channels each of them is projected to
    "ASPP_CHANNELS": 256,
    "ASPP_DILATIONS": [6, 12, 18],
    "ASPP_DROPOUT": 0.1,  # dropout probability
    "USE_DEPTHWISE_SEPARABLE_CONV": False,
}

_MASK_FORMER = {
    # transformer decoder
    "TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",  # registry TRANSFORMER_DECODER
    "TRANSFORMER_IN_FEATURE": "res5",  # res2 ... | transformer_encoder | pixel_embedding | multi_scale_pixel_decoder
    "NUM_OBJECT_QUERIES": 100,
    "HIDDEN_DIM": 256,  # channels of queries
    "NHEADS": 8,  # attention heads
    "DIM_FEEDFORWARD": 2048,  # hidden width of the decoder's feed-forward layers
    "ENC_LAYERS": 0,  # encoder layers before a standard decoder
    "DEC_LAYERS": 6,  # layers; masked decoder: counts the prediction from the bare queries, so 10 is nine
    "DROPOUT": 0.1,  # dropout probability
    "PRE_NORM": False,  # normalise before a layer instead of after it
    "ENFORCE_INPUT_PROJ": False,  # a 1x1 projection even where channels agree
    "SIZE_DIVISIBILITY": 32,  # a batch is padded to a multiple of this
    # loss
    "DEEP_SUPERVISION": True,  # the loss on every decoder layer
    "NO_OBJECT_WEIGHT": 0.1,  # of the "no object" class in the classification loss
    "CLASS_WEIGHT": 1.0,  # classification
    "CLASS_WEIGHTS": {},  # ours: class name -> its weight in the classification loss, 1 for those not named
    "DICE_WEIGHT": 1.0,  # dice of masks
    "MASK_WEIGHT": 20.0,  # MASK_LOSS of masks
    "MASK_LOSS": "cross_entropy",  # ours: cross_entropy | focal (MaskFormer), in matching and loss
    "EXTRA_LOSSES": [],  # ours: [name in the registry LOSS, weight] pairs
    "TRAIN_NUM_POINTS": 12544,  # 112 * 112 points per mask in matching and loss; 0: all pixels (MaskFormer)
    "OVERSAMPLE_RATIO": 3.0,  # candidates drawn per point kept
    "IMPORTANCE_SAMPLE_RATIO": 0.75,  # share of points taken where the mask is least certain
    "TEST": {
        "SEMANTIC_ON": True,  # which results a model returns
        "INSTANCE_ON": False,
        "PANOPTIC_ON": False,
        "OBJECT_MASK_THRESHOLD": 0.0,  # panoptic: smallest class probability of a segment
        "OVERLAP_THRESHOLD": 0.0,  # panoptic: smallest share of a mask that must stay visible
        "PANOPTIC_FILL": False,  # ours: a segment keeps pixels that its mask leaves out, as MaskFormer's do
        "SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,  # resize masks to the wanted size before combining them
    },
}

_MODEL = {
    "META_ARCHITECTURE": "GeneralizedRCNN",  # registry META_ARCH; the recipes set MaskFormer
    "DEVICE": "cuda",  # cuda | cpu | mps
    "WEIGHTS": "",  # checkpoint to start from: path, http(s) or detectron2:// address
    "PIXEL_MEAN": [103.53, 116.28, 123.675],  # subtracted, 0..255, in INPUT.FORMAT order
    "PIXEL_STD": [1.0, 1.0, 1.0],  # divided by, 0..255, in INPUT.FORMAT order
    "COMPILE": False,  # ours: backbone and head through torch.compile
    "CHANNELS_LAST": None,  # ours: convolutions in NHWC layout; None: on the CPU
    "ACTIVATION_CHECKPOINTING": False,  # ours: every block again in the backward pass: less memory, a third more time
    "BACKBONE": {
        "NAME": "build_resnet_backbone",  # registry BACKBONE, or "timm/<model>"
        "FREEZE_AT": 2,  # ResNet, timm: leading stages not trained, the stem being 1; 0: train all
    },
    "RESNETS": _RESNETS,
    "SWIN": _SWIN,
    "DINAT": _DINAT,
    "TIMM": _TIMM,
    "SEM_SEG_HEAD": _SEM_SEG_HEAD,
    "MASK_FORMER": _MASK_FORMER,
}

_SOLVER = {
    "OPTIMIZER": "ADAMW",  # ADAMW | SGD
    "IMS_PER_BATCH": 16,  # images (or clips) of one update, over all ranks and accumulation steps
    "ACCUMULATE_STEPS": 1,  # ours: forward passes each rank cuts its share of a batch into
    "REFERENCE_WORLD_SIZE": 0,  # ranks the batch and schedule were written for; 0: do not rescale
    "MAX_ITER": 40000,
    "BASE_LR": 0.001,
    "BACKBONE_MULTIPLIER": 0.1,  # learning rate of the backbone over BASE_LR
    "BIAS_LR_FACTOR": 1.0,  # learning rate of biases over BASE_LR
    "MOMENTUM": 0.9,  # SGD
    "NESTEROV": False,  # SGD
    "WEIGHT_DECAY": 0.0001,
    "WEIGHT_DECAY_NORM": 0.0,  # of normalisation layers
    "WEIGHT_DECAY_EMBED": 0.0,  # of embeddings and position tables
    "WEIGHT_DECAY_BIAS": None,  # of biases; None: WEIGHT_DECAY
    "CLIP_GRADIENTS": {
        "ENABLED": False,
        "CLIP_TYPE": "value",  # full_model: norm over all gradients | norm: per tensor | value: per element
        "CLIP_VALUE": 1.0,  # largest norm or value
        "NORM_TYPE": 2.0,  # p of the norm
    },
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",  # WarmupMultiStepLR | WarmupPolyLR | WarmupCosineLR
    "STEPS": [30000],  # multi-step: iterations where the rate is multiplied by GAMMA
    "GAMMA": 0.1,
    "BASE_LR_END": 0.0,  # cosine: rate at the end
    "POLY_LR_POWER": 0.9,  # poly: (1 - iteration / MAX_ITER) ** power
    "POLY_LR_CONSTANT_ENDING": 0.0,  # poly: the rate stays at this share of BASE_LR once it falls below; 0: off
    "WARMUP_METHOD": "linear",  # linear | constant
    "WARMUP_FACTOR": 0.001,  # share of the rate at the first iteration
    "WARMUP_ITERS": 1000,
    "CHECKPOINT_PERIOD": 5000,  # iterations between checkpoints
    "AMP": {
        "ENABLED": False,  # autocast in training
        "DTYPE": "float16",  # ours: float16 (with loss scaling) | bfloat16
    },
}

_TEST = {
    "EVAL_PERIOD": 0,  # iterations between evaluations; 0: only at the end
    "EXPECTED_RESULTS": [],  # [task, metric, value, tolerance] entries: the run fails when a result is off
    "DETECTIONS_PER_IMAGE": 100,  # instances kept per image
    "DETECTIONS_PER_VIDEO": 10,  # ours: tracks kept per evaluated video, fixed in the published code
    "WINDOW_SIZE": 0,  # ours: longer videos are run in windows of this many frames; 0: at once, as published
    "WINDOW_OVERLAP": 2,  # ours: frames that windows share, on which tracks are linked
    "SAVE_PREDICTIONS": False,  # ours: write COCO-style predictions into inference/
    "NUM_VISUALIZED": 8,  # ours: images in an evaluation's contact sheet; 0: none
    "AUG": {  # test-time augmentation
        "ENABLED": False,  # semantic results: the mean over all sizes and their mirror images
        "MIN_SIZES": [400, 500, 600, 700, 800, 900, 1000, 1100, 1200],  # shortest edges
        "MAX_SIZE": 4000,  # longest edge
        "FLIP": True,  # each size mirrored, too
    },
}

DEFAULTS = {
    "IMPORTS": [],  # ours: user modules, by name or .py path (relative to the YAML, then to the current folder)
    "OUTPUT_DIR": "./output",
    "SEED": -1,  # negative: a new one each run
    "CUDNN_BENCHMARK": False,  # let cuDNN time its algorithms; for inputs of one size
    "FLOAT32_PRECISION": "",  # "" | highest | high | medium, as torch.set_float32_matmul_precision
    "INPUT": _INPUT,
    "DATASETS": _DATASETS,
    "DATALOADER": _DATALOADER,
    "MODEL": _MODEL,
    "SOLVER": _SOLVER,
    "TEST": _TEST,
}

# sections whose children a recipe names itself, and how it fills them
OPEN_SECTIONS = {
    ("DATASETS", "CUSTOM"): "NAME: {KEY: VALUE}",
    ("MODEL", "MASK_FORMER", "CLASS_WEIGHTS"): "CLASS NAME: WEIGHT",
}
