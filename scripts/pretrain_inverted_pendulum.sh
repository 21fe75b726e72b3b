set -e
collect="tipl collect InvertedPendulum-v4"
$collect --num-trials 320 --seed 7 --out runs/paths/ip-w64
$collect --num-trials 64 --seed 32 --hidden-sizes 32 32 --out runs/paths/ip-w32
$collect --num-trials 64 --seed 128 --hidden-sizes 128 128 --out runs/paths/ip-w128
$collect --num-trials 64 --seed 1 --hidden-sizes 64 --out runs/paths/ip-d1
$collect --num-trials 64 --seed 3 --hidden-sizes 64 64 64 --out runs/paths/ip-d3
tipl train runs/paths/ip-w64 runs/paths/ip-w32 runs/paths/ip-w128 runs/paths/ip-d1 runs/paths/ip-d3 \
    --model neuron --targets elite own --held-out 0.2 --num-steps 1500 --rounds 3 --threads 2 \
    --condition-on-return --out runs/models/inverted-pendulum
python benchmarks/optimize_networks.py --model runs/models/inverted-pendulum \
    --paths runs/paths/ip-w64 --episodes 2 --json docs/results/optimize-InvertedPendulum-v4.json
python scripts/ship_model.py runs/models/inverted-pendulum \
    docs/results/optimize-InvertedPendulum-v4.json scripts/pretrain_inverted_pendulum.sh
