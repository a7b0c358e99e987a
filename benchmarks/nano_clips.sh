#!/bin/sh
# The clips that the nano models are trained on: five simulated domains at 128x128 and the sample footage, curated into one
# dataset (about 2 hours of video).
#
#     sh benchmarks/nano_clips.sh /data/nano
#
# About 25 minutes on two CPU cores, most of it physics and camera flights. No seed here is used by any evaluation.
set -eu
raw=$1/raw
worldfoundry simulate pusher --out "$raw/pusher" --episodes 240 --frames 96 --size 128 --seed 101
worldfoundry simulate physics --out "$raw/physics" --episodes 160 --frames 60 --seed 102 --no-masks --no-depth
worldfoundry simulate camera --out "$raw/camera" --episodes 160 --frames 66 --seed 103 --no-masks --no-depth
worldfoundry simulate driving --out "$raw/driving" --episodes 40 --frames 40 --seed 104 --no-masks --no-depth
worldfoundry simulate manipulation --out "$raw/panda" --episodes 60 --frames 120 --seed 105 --cameras exo exo2 --no-shadows
cp "$(python -c 'from worldfoundry.data.sample import sample_footage as f; print(f())')"/*.mp4 "$raw"
worldfoundry curate "$raw" --out "$1/clips" --min-s 0.8
