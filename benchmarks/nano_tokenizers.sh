#!/bin/sh
# The table of docs/results/tokenizers.md: the shipped tokenizers on renders of seeds that no training saw, beside bicubic and codecs.
#
#     sh benchmarks/nano_tokenizers.sh /tmp/nano_tokenizers
#
# Renders 5 domains (about 3 minutes), scores 30 clips of 33 frames, and leaves results.json (kept as benchmarks/nano_tokenizers.json)
# and report.html in that folder.
set -eu
out=$1
clips=$out/clips
worldfoundry simulate pusher --out "$clips/pusher" --episodes 8 --frames 40 --size 128 --seed 9001 --crf 6
worldfoundry simulate physics --out "$clips/physics" --episodes 8 --frames 40 --seed 9002 --crf 6 --no-masks --no-depth
worldfoundry simulate camera --out "$clips/camera" --episodes 8 --frames 40 --seed 9003 --crf 6 --no-masks --no-depth
worldfoundry simulate driving --out "$clips/driving" --episodes 2 --frames 40 --seed 9004 --crf 6 --no-masks --no-depth
worldfoundry simulate manipulation --out "$clips/panda" --episodes 4 --frames 60 --seed 9005 --crf 6 --cameras exo exo2 --no-shadows
worldfoundry evaluate tokenizer "$clips" --tokenizer nano-cv8x8x8 nano-dv8x16x16 --num-frames 33 --max-clips 30 \
    --metrics psnr ssim "LPIPS-like[hed-vgg16]" "KD[effnet-lite0]" --out "$out/table"
