#!/bin/sh
# The clips of nano-diffusion: those of benchmarks/nano_clips.sh and more of the two domains that it learns first, and held-out
# scenes of every domain.
#
#     sh benchmarks/nano_clips.sh /data/nano && sh benchmarks/nano_diffusion_clips.sh /data/nano
#
# About 15 minutes on two CPU cores. Training seeds end below 1000, held-out seeds begin at 9000.
set -eu
raw=$1/raw
worldfoundry simulate pusher --out "$raw/pusher2" --episodes 400 --frames 97 --size 128 --seed 106
worldfoundry simulate physics --out "$raw/physics2" --episodes 60 --frames 60 --seed 107 --no-masks --no-depth
worldfoundry curate "$raw" --out "$1/clips-diffusion" --min-s 0.8

held=$1/held-out
worldfoundry simulate pusher --out "$held/raw/pusher" --episodes 48 --frames 41 --size 128 --seed 9101
worldfoundry simulate driving --out "$held/raw/driving" --episodes 6 --frames 36 --seed 9104 --no-masks --no-depth
worldfoundry simulate camera --out "$held/raw/camera" --episodes 32 --frames 36 --seed 9103 --no-masks --no-depth
worldfoundry simulate physics --out "$held/raw/physics" --episodes 16 --frames 40 --seed 9102 --no-masks --no-depth
worldfoundry simulate manipulation --out "$held/raw/panda" --episodes 16 --frames 60 --seed 9105 --cameras exo exo2 --no-shadows
for domain in pusher physics camera driving panda; do
    worldfoundry curate "$held/raw/$domain" --out "$held/$domain" --min-s 0.8
done
