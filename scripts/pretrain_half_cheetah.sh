set -e
tipl collect HalfCheetah-v4 --num-trials 64 --total-steps 1000000 --out runs/paths/cheetah
tipl train runs/paths/cheetah --model neuron --targets elite --held-out 0.125 \
    --num-steps 2500 --rounds 3 --threads 1 --out runs/models/half-cheetah
python benchmarks/optimize_networks.py --model runs/models/half-cheetah \
    --paths runs/paths/cheetah --networks 128 --others 48 --episodes 2 \
    --json docs/results/optimize-HalfCheetah-v4.json
python scripts/ship_model.py runs/models/half-cheetah \
    docs/results/optimize-HalfCheetah-v4.json scripts/pretrain_half_cheetah.sh
